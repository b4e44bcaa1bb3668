"""The micro-batch: the unit of work that ingest hands to training and evaluation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from morphmlp.data.manifest import Manifest
from morphmlp.data.plan import MicroBatchPlan
from morphmlp.data.quarantine import BrokenVideo

DecodedRows = Mapping[str, npt.NDArray[np.generic]]
"""What a decode task returns: `row`, `label`, `error` (empty when all is well), `message`, `concealed` (frames
that stand in for damaged ones), and `clips` `[n r t h w c]`, with zeros in the places of broken videos."""


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Clips that go through the network together. Broken videos leave their places empty."""

    plan: MicroBatchPlan
    clips: Tensor
    """uint8, `[b t h w c]`; a video's clips stand next to each other."""
    labels: Tensor
    """int64, `[b]`."""
    rows: npt.NDArray[np.int64]
    """Manifest rows of the videos that are here, `[b / clips per video]`."""
    broken: tuple[BrokenVideo, ...]
    concealed: int = 0
    """Decoded frames that stand in for damaged ones."""


@dataclass(frozen=True, kw_only=True)
class Failures:
    """What a broken row becomes: of which manifest, in which stage, by which decoder."""

    manifest: Manifest
    stage: str
    decoder: str
    decoder_version: str

    def describe(self, row: int, error: str, message: str) -> BrokenVideo:
        """The quarantine entry of a manifest row."""
        return BrokenVideo(
            video_id=self.manifest.table["video_id"][row].as_py(),
            path=self.manifest.table["path"][row].as_py(),
            stage=self.stage,
            error=error,
            message=message,
            decoder=self.decoder,
            decoder_version=self.decoder_version,
        )


def assemble(
    blocks: Iterator[DecodedRows], plans: Iterator[MicroBatchPlan], *, failures: Failures, pin_memory: bool = False
) -> Iterator[MicroBatch]:
    """Cut a stream of decoded rows into the planned micro-batches.

    Raises:
        RuntimeError: The stream isn't the planned one; ingest must never repeat, drop or reorder in silence.
    """
    rows = _RowStream(blocks)
    for plan in plans:
        taken = rows.take(len(plan.rows))
        if not np.array_equal(taken["row"], plan.rows):
            raise RuntimeError(
                f"epoch {plan.epoch}, step {plan.step}, micro-batch {plan.index}: planned rows {plan.rows.tolist()}, "
                f"received {taken['row'].tolist()}"
            )
        good = taken["error"] == ""
        clips = torch.from_numpy(np.ascontiguousarray(taken["clips"][good]).reshape(-1, *taken["clips"].shape[2:]))
        labels = torch.from_numpy(np.repeat(taken["label"][good].astype(np.int64), taken["clips"].shape[1]))
        yield MicroBatch(
            plan=plan,
            clips=clips.pin_memory() if pin_memory else clips,
            labels=labels.pin_memory() if pin_memory else labels,
            rows=plan.rows[good],
            concealed=int(taken["concealed"].sum()),
            broken=tuple(
                failures.describe(int(taken["row"][i]), str(taken["error"][i]), str(taken["message"][i]))
                for i in np.flatnonzero(~good)
            ),
        )


class _RowStream:
    """Takes exactly n rows from blocks of any size."""

    def __init__(self, blocks: Iterator[DecodedRows]) -> None:
        self._blocks = blocks
        self._block: DecodedRows = {}
        self._used = 0

    def take(self, count: int) -> dict[str, npt.NDArray[np.generic]]:
        parts: list[DecodedRows] = []
        missing = count
        while missing:
            left = len(self._block["row"]) - self._used if self._block else 0
            if not left:
                self._block, self._used = next(self._blocks, {}), 0
                if not self._block:
                    raise RuntimeError(f"the decode stream ended {missing} videos before the plan")
                continue
            step = min(left, missing)
            parts.append({name: column[self._used : self._used + step] for name, column in self._block.items()})
            self._used += step
            missing -= step
        if len(parts) == 1:
            return dict(parts[0])
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
