"""The multi-view test over the cluster: decode tasks feed a pool of scorers, one per worker."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import torch
from torch import Tensor, nn

from morphmlp.config.schema import ClipConfig, TestConfig
from morphmlp.data.batches import DecodedRows, Failures
from morphmlp.data.clips import ViewClips
from morphmlp.data.decoding import decoder_by_name
from morphmlp.data.manifest import Manifest
from morphmlp.data.plan import MicroBatchPlan
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.ray_dataset import IngestShare, decoding_dataset, limit_execution
from morphmlp.evaluation.predictions import check_coverage, predictions_table
from morphmlp.evaluation.scoring import view_logits


@dataclass(frozen=True, kw_only=True)
class ScorerPool:
    """Processes that hold the model during a test."""

    num_workers: int
    cpus_per_worker: int
    device: str
    """`cpu` or `cuda`; a cuda scorer takes one GPU."""
    node_labels: dict[str, str]
    """Ray label selector of the nodes that may score."""


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """What a test found."""

    predictions: pa.Table
    """Columns: `morphmlp.data.columns.PREDICTIONS`."""
    broken: list[BrokenVideo]
    concealed: int
    """Decoded frames that stand in for damaged ones."""


def score_views(
    build: Callable[[], nn.Module],
    weights: Mapping[str, Tensor],
    manifest: Manifest,
    *,
    clip: ClipConfig,
    views: TestConfig,
    pool: ScorerPool,
    share: IngestShare,
    videos_at_once: int,
    progress: Callable[[int], None],
) -> TestResult:
    """Score every video of a manifest on all its views.

    Args:
        build: Makes the network (weights are loaded into it); called in each scorer.
        weights: The network's state dict.
        manifest: The available videos to score.
        clip: How clips are cut.
        views: Clips and crops per video.
        pool: The scorers.
        share: What decoding may use of the cluster, all scorers together.
        videos_at_once: Videos per decode task and per forward pass.
        progress: Told the number of videos done so far.

    Raises:
        EvaluationError: A video was neither scored nor quarantined.
    """
    rows = np.arange(len(manifest), dtype=np.int64)
    plans = [
        MicroBatchPlan(epoch=0, step=0, index=index, rows=part)
        for index, part in enumerate(np.split(rows, range(videos_at_once, len(rows), videos_at_once)))
    ]
    cutter = ViewClips(clip=clip, views=views)
    share = replace(share, videos_per_task=videos_at_once)
    scorers = min(pool.num_workers, len(plans))  # one without work would only take its start's time
    dataset = decoding_dataset(manifest, plans, cutter, share).map_batches(
        Scorer,
        fn_constructor_kwargs={"build": build, "weights": weights, "pool": pool},
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=scorers),
        num_cpus=pool.cpus_per_worker,
        num_gpus=1 if pool.device == "cuda" else 0,
        label_selector=pool.node_labels,
    )
    limit_execution(dataset.context, share, cutter, actor_cpus=scorers * pool.cpus_per_worker)
    failures = Failures(
        manifest=manifest, stage="test", decoder=share.decoder, decoder_version=decoder_by_name(share.decoder).version
    )
    logits: list[tuple[int, npt.NDArray[np.float32]]] = []
    broken: list[BrokenVideo] = []
    concealed = 0
    for row in _rows(dataset.iter_batches(batch_size=None, batch_format="numpy")):
        if row["error"]:
            broken.append(failures.describe(int(row["row"]), str(row["error"]), str(row["message"])))
        else:
            concealed += int(row["concealed"])
            logits.append((int(row["row"]), np.asarray(row["view_logits"], dtype=np.float32)))
        progress(len(logits) + len(broken))
    check_coverage(manifest, scored=[row for row, _ in logits], broken=[video.video_id for video in broken])
    return TestResult(predictions=predictions_table(manifest, dict(logits)), broken=broken, concealed=concealed)


class Scorer:
    """Holds the model on its device and scores decoded rows.

    Columns in: `morphmlp.data.batches.DecodedRows`. Columns out: the same, with
    `view_logits` `[n v k]` for the clips.
    """

    def __init__(self, build: Callable[[], nn.Module], weights: Mapping[str, Tensor], pool: ScorerPool) -> None:
        torch.set_num_threads(pool.cpus_per_worker)
        self._device = torch.device(pool.device)
        self._model = build()
        self._model.load_state_dict(weights)
        self._model.to(self._device).eval()

    def __call__(self, rows: DecodedRows) -> DecodedRows:
        """Logits of every view; a broken video's are those of its black places and go no further."""
        clips = torch.from_numpy(np.array(rows["clips"]))
        videos, views = clips.shape[:2]
        logits = view_logits(self._model, clips.flatten(0, 1), device=self._device, clips_at_once=max(views, 8))
        return {
            "row": rows["row"],
            "error": rows["error"],
            "message": rows["message"],
            "concealed": rows["concealed"],
            "view_logits": logits.view(videos, views, -1).numpy(),
        }


def _rows(blocks: Iterable[Any]) -> Iterator[dict[str, np.generic]]:
    for block in blocks:
        for place in range(len(block["row"])):
            yield {name: column[place] for name, column in block.items()}
