"""The micro-batch: the unit of work that ingest hands to training and evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from morphmlp.config.clip import AugmentConfig
from morphmlp.data.clips.draws import ClipKey, draw_erasing
from morphmlp.data.clips.extract import ClipExtractor, FinishClips
from morphmlp.data.decoding.protocol import Box
from morphmlp.data.manifest import Manifest
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.stream.plan import MicroBatchPlan


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Clips that go through the network together. Broken videos leave their places empty."""

    plan: MicroBatchPlan
    clips: Tensor
    """uint8, `[b t h w c]`; a video's clips stand next to each other. Read-only memory: never changed in place."""
    labels: Tensor
    """int64, `[b]`; of images with label maps uint8 `[b h w]`, extracted with the draws of their clips."""
    rows: npt.NDArray[np.int64]
    """Manifest rows of the videos that are here, `[b / clips per video]`."""
    broken: tuple[BrokenVideo, ...]
    erased: tuple[Box | None, ...] = ()
    """What training fills with noise once the clips are normalised, one entry a clip; empty: nothing."""
    concealed: int = 0
    """Decoded frames that stand in for damaged ones."""
    retried: int = 0
    """Videos that only a second decoder could read."""
    cpu_s: float = 0.0
    """CPU seconds that decoding its videos took, broken ones too."""


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """What one video becomes in a micro-batch."""

    clips_per_video: int
    num_frames: int
    crop_size: int
    erasing: AugmentConfig | None = None
    """Where random erasing waits for normalisation: its augmentation."""
    own_sizes: bool = False
    """Whether the clips have their videos' sizes instead of `crop_size`."""
    with_maps: bool = False
    """Whether the labels are maps."""

    @classmethod
    def of(cls, extractor: ClipExtractor) -> Self:
        """What a video becomes whose clips this makes."""
        return cls(
            clips_per_video=extractor.clips_per_video,
            num_frames=extractor.clip.num_frames,
            crop_size=extractor.clip.crop_size,
            erasing=extractor.erasing,
            own_sizes=extractor.own_sizes,
            with_maps=extractor.with_maps,
        )

    def erased(self, key: ClipKey) -> list[Box | None]:
        """The boxes of a video's clips that are erased after normalisation."""
        if self.erasing is None:
            return []
        drawn = [
            draw_erasing(self.erasing, key, repeat=repeat, crop_size=self.crop_size)
            for repeat in range(self.clips_per_video)
        ]
        return [None if erasing is None else erasing.box for erasing in drawn]


def broken_videos(table: pa.Table, manifest: Manifest, *, stage: str) -> tuple[BrokenVideo, ...]:
    """The quarantine entries of those rows that couldn't be used; of `columns.DECODED` all but the clips is needed."""
    if not any(table["error"].to_pylist()):
        return ()
    names = manifest.table.select(["video_id", "path"])
    facts = ("error", "message", "decoder", "decoder_version", "size_bytes", "mtime")
    return tuple(
        BrokenVideo(**names.slice(row["row"], 1).to_pylist()[0], stage=stage, **{name: row[name] for name in facts})
        for row in table.select(["row", *facts]).to_pylist()
        if row["error"]
    )


def stored_clips(table: pa.Table, shape: ClipShape) -> tuple[Tensor, Tensor | None]:
    """The clips `[b t h w c]` of decoded rows, and their maps `[b h w]` where there are any; on the rows' memory.

    Raises:
        RuntimeError: Videos of different sizes, which can't stand in one micro-batch.
    """
    height = width = shape.crop_size
    if shape.own_sizes:
        sizes = {
            (row["height"], row["width"])
            for row in table.select(["height", "width", "error"]).to_pylist()
            if not row["error"]
        }
        if len(sizes) > 1:
            raise RuntimeError(f"a micro-batch of videos of {len(sizes)} sizes: {sorted(sizes)}; each must be its own")
        height, width = next(iter(sizes), (height, width))
    clips = clip_bytes(table["clips"]).view(-1, shape.num_frames, height, width, 3)
    return clips, clip_bytes(table["maps"]).view(-1, height, width) if shape.with_maps else None


def clip_bytes(column: pa.ChunkedArray) -> Tensor:
    """The bytes of all rows of a large_binary column behind each other, uint8; not copied where they lie so already."""
    parts = [pa.array([], pa.uint8())]
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        if data is not None and len(chunk):
            start, end = np.frombuffer(offsets, dtype=np.int64)[[chunk.offset, chunk.offset + len(chunk)]].tolist()
            parts.append(pa.Array.from_buffers(pa.uint8(), end - start, [None, data], offset=start))
    return torch.utils.dlpack.from_dlpack(parts[1] if len(parts) == 2 else pa.concat_arrays(parts))


def assemble(
    tables: Iterator[pa.Table],
    plans: Iterator[MicroBatchPlan],
    *,
    manifest: Manifest,
    stage: str,
    shape: ClipShape,
    finish: FinishClips | None = None,
    pin_memory: bool = False,
) -> Iterator[MicroBatch]:
    """Divide a stream of decoded rows (`columns.DECODED`) into the planned micro-batches.

    Rows come in pieces of any size. `finish` makes clips of what was decoded; without it the rows hold clips already.
    With `pin_memory` a GPU can fetch them by itself.

    Raises:
        RuntimeError: The stream isn't the planned one; ingest must never repeat, drop or reorder in silence.
    """
    rows = _RowStream(tables)
    for plan in plans:
        taken = rows.take(len(plan.rows))
        found = taken["row"].to_numpy()
        if not np.array_equal(found, plan.rows):
            raise RuntimeError(
                f"epoch {plan.epoch}, step {plan.step}, micro-batch {plan.index}: planned rows {plan.rows.tolist()}, "
                f"received {found.tolist()}"
            )
        # A broken video leaves its place empty. Nobody moves up: every other video keeps its step and its draws.
        broken = broken_videos(taken, manifest, stage=stage)
        good = np.array([not error for error in taken["error"].to_pylist()], dtype=bool)
        keys = _clip_keys(plan, manifest)
        maps: Tensor | None = None
        if finish is not None:
            clips = _finished(taken, keys, shape, finish)
        else:
            clips, maps = stored_clips(taken, shape)
        labels = maps if maps is not None else _labels(taken, good, shape)
        yield MicroBatch(
            plan=plan,
            clips=clips.pin_memory() if pin_memory and not clips.is_cuda else clips,
            labels=labels.pin_memory() if pin_memory else labels,
            rows=plan.rows[good].astype(np.int64),
            broken=broken,
            erased=tuple(box for key, used in zip(keys, good, strict=True) if used for box in shape.erased(key)),
            concealed=int(taken["concealed"].to_numpy().sum()),
            retried=int(taken["retried"].to_numpy(zero_copy_only=False).sum()),
            cpu_s=float(taken["cpu_s"].to_numpy().sum()),
        )


def _labels(table: pa.Table, good: npt.NDArray[np.bool_], shape: ClipShape) -> Tensor:
    return torch.from_numpy(np.repeat(table["label"].to_numpy()[good].astype(np.int64), shape.clips_per_video))


def _clip_keys(plan: MicroBatchPlan, manifest: Manifest) -> list[ClipKey]:
    video_ids = manifest.table["video_id"].take(pa.array(plan.rows)).to_pylist()
    return [
        ClipKey(seed=plan.seed, epoch=plan.epoch, video_id=video_id, copy=copy)
        for video_id, copy in zip(video_ids, plan.copy_numbers.tolist(), strict=True)
    ]


def _finished(table: pa.Table, keys: Sequence[ClipKey], shape: ClipShape, finish: FinishClips) -> Tensor:
    parts = []
    for place, video in enumerate(table.select(["height", "width", "error"]).to_pylist()):
        if not video["error"]:
            frames = clip_bytes(table["clips"].slice(place, 1)).view(-1, video["height"], video["width"], 3)
            parts.append(finish(frames, keys[place]))
    size = shape.crop_size
    return torch.cat(parts) if parts else torch.empty(0, shape.num_frames, size, size, 3, dtype=torch.uint8)


class _RowStream:
    """Takes exactly n rows from tables of any size."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._left: pa.Table | None = None

    def take(self, count: int) -> pa.Table:
        parts: list[pa.Table] = []
        missing = count
        while missing:
            if self._left is None or not self._left.num_rows:
                self._left = next(self._tables, None)
                if self._left is None:
                    raise RuntimeError(f"the decode stream ended {missing} videos before the plan")
                continue
            part, self._left = self._left.slice(0, missing), self._left.slice(missing)
            parts.append(part)
            missing -= part.num_rows
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts)
