"""The ingest measurement as a whole: what is measured, in which order, and how it is reported."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from morphmlp.benchmarks.clip_costs import ClipCosts, measure_clip_costs
from morphmlp.benchmarks.ray_ingest import DECODE_CPUS, VIDEOS_PER_TASK, IngestComparison, compare_ingest
from morphmlp.benchmarks.ray_plan_size import PlanSize, measure_plan_size
from morphmlp.benchmarks.stored_forms import (
    NUM_OTHER_FORMS,
    prepared_psnr_db,
    real_size_videos,
    size_ratio,
    stored_forms,
)
from morphmlp.cluster.address import require_no_cluster
from morphmlp.cluster.ray_cluster import ray_session
from morphmlp.config.operation import ClusterConfig, IngestConfig
from morphmlp.progress import Progress


@dataclass(frozen=True, kw_only=True)
class _Effort:
    """How much is measured."""

    clip_rounds: int
    ingest_rounds: int
    ingest_clips: int
    """Clips that are measured in each of these rounds."""


_FULL = _Effort(clip_rounds=5, ingest_rounds=5, ingest_clips=480)
_QUICK = _Effort(clip_rounds=1, ingest_rounds=2, ingest_clips=240)


@dataclass(frozen=True, kw_only=True)
class IngestFigures:
    """Decoding and ingest in figures; all on the default decoder."""

    ratio_to_decord: float | None
    """See `ClipCosts`; None where decord can't be used."""
    ray_cpu_ratio: float
    """See `IngestComparison`."""
    ray_wall_ratio: float
    first_batch_s: float
    views4_ratio: float
    """See `ClipCosts`."""
    repeats2_ratio: float
    prepared_ratio: float
    prepared_psnr_db: float
    """What a prepared copy loses: PSNR against its original, dB."""
    prepared_size_ratio: float
    """Bytes of prepared copies over those of their originals."""
    plan_10m_s: float
    """From a manifest file of ten million videos to a worker's first requests, CPU seconds."""
    plan_10m_mb: float
    """Memory that a worker needs for it."""
    clips_per_s: Mapping[str, float]
    """Training clips a second and core, by stored form."""
    quick: bool
    wall_s: float
    """The whole measurement, seconds."""
    clip_costs: ClipCosts
    ingest: IngestComparison
    plan: PlanSize


def measure_ingest(folder: Path, *, quick: bool, progress: Progress) -> IngestFigures:
    """Measure everything on this machine.

    Args:
        folder: Where the videos are made and kept.
        quick: Fewer rounds.
        progress: Shows how far it is.

    Raises:
        ClusterError: `RAY_ADDRESS` names a cluster; CPU times of other machines can't be read.
        ManifestError: The folder holds something else.
        FailedError: A video couldn't be decoded.
    """
    require_no_cluster()
    began = time.monotonic()
    effort = _QUICK if quick else _FULL
    progress.line(f"making videos in {folder}, where they aren't there yet")
    videos = real_size_videos(folder.absolute())
    forms = stored_forms(folder.absolute(), videos[:NUM_OTHER_FORMS])
    progress.phase("CPU time of clips", total=effort.clip_rounds, unit="rounds")
    costs = measure_clip_costs(forms, rounds=effort.clip_rounds, on_progress=progress.update)
    ingest = IngestConfig(cpus=DECODE_CPUS, videos_per_task=VIDEOS_PER_TASK)
    progress.line("starting Ray")
    with ray_session(ClusterConfig(num_workers=1, device="cpu"), ingest, micro_batches=1) as placement:
        progress.phase("Ray Data and DataLoader", total=effort.ingest_rounds, unit="rounds")
        comparison = compare_ingest(
            videos,
            placement.ingest_share(ingest, pipelines=1),
            rounds=effort.ingest_rounds,
            clips=effort.ingest_clips,
            on_progress=progress.update,
        )
        progress.line("planning an epoch of 10,000,000 videos")
        plan = measure_plan_size()
    return IngestFigures(
        ratio_to_decord=costs.ratio_to_decord,
        ray_cpu_ratio=comparison.ray_cpu_ratio,
        ray_wall_ratio=comparison.ray_wall_ratio,
        first_batch_s=comparison.first_batch_s,
        views4_ratio=costs.views4_ratio,
        repeats2_ratio=costs.repeats2_ratio,
        prepared_ratio=costs.prepared_ratio,
        prepared_psnr_db=prepared_psnr_db(forms["mp4"], forms["prepared"]),
        prepared_size_ratio=size_ratio(forms["mp4"], forms["prepared"]),
        plan_10m_s=plan.plan_s,
        plan_10m_mb=plan.worker_mb,
        clips_per_s=costs.clips_per_s,
        quick=quick,
        wall_s=time.monotonic() - began,
        clip_costs=costs,
        ingest=comparison,
        plan=plan,
    )


def figures_table(figures: IngestFigures) -> str:
    """One line for each figure, in words."""
    ingest, plan = figures.ingest, figures.plan
    forms = ", ".join(f"{form} {clips:.1f}" for form, clips in figures.clips_per_s.items())
    decord = (
        "decord can't be used here"
        if figures.ratio_to_decord is None
        else f"{figures.ratio_to_decord:.2f} times decord's clips a second and core"
    )
    return "\n".join(
        [
            f"{decord} ({figures.clip_costs.rounds} clips of each of {figures.clip_costs.videos} videos)",
            f"training clips a second and core: {forms}",
            f"prepared copies: {figures.prepared_ratio:.2f} times the clips of their originals, "
            f"{figures.prepared_size_ratio:.2f} times their size, PSNR {figures.prepared_psnr_db:.1f} dB",
            f"four test views cost {figures.views4_ratio:.2f} training clips, two repeats {figures.repeats2_ratio:.2f}",
            f"Ray Data costs {figures.ray_cpu_ratio:.3f} times a DataLoader's CPU time "
            f"({ingest.ray_cpu_ms:.1f} ms a clip against {ingest.loader_cpu_ms:.1f}) and gives "
            f"{figures.ray_wall_ratio:.3f} times its clips a second ({ingest.ray_clips_per_s:.1f} against "
            f"{ingest.loader_clips_per_s:.1f}; {ingest.rounds} rounds of {ingest.clips_per_round})",
            f"first batch after {figures.first_batch_s:.1f} s, {ingest.cold_first_batch_s:.1f} s where no decode "
            "process runs yet",
            f"{plan.videos:,} videos: {figures.plan_10m_s:.1f} CPU s to a worker's first requests, "
            f"{figures.plan_10m_mb:.0f} MB, {plan.step_us:.0f} us a step",
        ]
    )
