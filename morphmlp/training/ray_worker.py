"""The function that runs on every training worker: build, restore, iterate, report, save."""

import os
import tempfile
import uuid
from dataclasses import astuple, dataclass
from pathlib import Path

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from morphmlp.config import ExperimentConfig
from morphmlp.data.quarantine import broken_limit
from morphmlp.data.ray_dataset import IngestShare, warm_decode_processes
from morphmlp.evaluation.scoring import score_single_views
from morphmlp.metrics import ScoreCounts
from morphmlp.models.cost import activation_bytes
from morphmlp.record import Tags
from morphmlp.training.loop import EpochSummary, Recipe, StepSummary, fit
from morphmlp.training.ray_clips import RayClips, SharedVideos
from morphmlp.training.report import QUARANTINE, Report, Reporter
from morphmlp.training.state import TrainState, load_checkpoint, new_state, restore, save_checkpoint

ACTIVATION_MEMORY_SHARE = 0.5
"""Share of a worker's memory that activations may fill before `auto` recomputes them instead."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything that a worker needs; plain values, so that it travels."""

    config: ExperimentConfig
    videos: SharedVideos
    share: IngestShare
    num_videos: int
    """Available videos of the training manifest."""
    num_val_videos: int
    data_fingerprint: str
    """Of the training manifest's available videos."""
    cpus_per_worker: int


def train_worker(job: TrainJob) -> None:
    """Train on this worker until the plan ends, saving and reporting along the way."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    torch.set_num_threads(job.cpus_per_worker)
    warm_decode_processes(job.share)
    clips = RayClips.of(job.config, job.videos, job.share, device=device, worker=rank, num_workers=workers)
    bf16 = _uses_bf16(job.config.train.precision, device)
    state = new_state(job.config, device)
    if (saved := ray.train.get_checkpoint()) is not None:
        with saved.as_directory() as folder:
            checkpoint = load_checkpoint(Path(folder))
        restore(state, checkpoint, config=job.config, data_fingerprint=job.data_fingerprint)
    recipe = _recipe(job, clips, bf16=bf16)
    reporter = Reporter(recipe=recipe, first=rank == 0)
    notes = _choose_activation_checkpointing(
        job, state, device, bf16=bf16, local_workers=context.get_local_world_size()
    )
    ray.train.report(Report(notes=notes, facts=_facts(device, workers, bf16=bf16)) if rank == 0 else Report())
    broken = 0.0
    broken_val = 0
    for summary in fit(state, _parallel(state.model, workers), clips, recipe=recipe, device=device):
        if isinstance(summary, StepSummary):
            reporter.add_step(summary)
            if (summary.step + 1) % job.config.execution.report_every_steps:
                continue
        else:
            broken_val = _end_epoch(job, state, clips, summary, reporter=reporter, device=device)
        broken += reporter.broken_videos()
        stopped = _reason_to_stop(job, reporter, broken=broken, broken_val=broken_val)
        save = isinstance(summary, EpochSummary) and _checkpoint_due(job, recipe, summary) and stopped is None
        _report(reporter.take(), job, state, save=save, first=rank == 0)
        if stopped is not None:
            ray.train.report(Report(stopped=stopped))
            return
        if isinstance(summary, EpochSummary):
            broken = 0.0


def _end_epoch(
    job: TrainJob,
    state: TrainState,
    clips: RayClips,
    summary: EpochSummary,
    *,
    reporter: Reporter,
    device: torch.device,
) -> int:
    """Validate where it is due; returns the broken validation videos over all workers."""
    reporter.add_epoch(summary)
    ended = summary.step == reporter.recipe.total_steps
    if not ended and (summary.epoch + 1) % job.config.execution.validate_every_epochs:
        return 0
    counts, broken = score_single_views(state.model, clips.validation(), device=device)
    counts = _over_workers(counts, device)
    reporter.add_validation(counts, broken, epoch=summary.epoch + 1)
    return job.num_val_videos - counts.num_videos


def _reason_to_stop(job: TrainJob, reporter: Reporter, *, broken: float, broken_val: int) -> str | None:
    """Why the run can't go on; decided from numbers over all workers, so that all of them stop together."""
    if (step := reporter.first_not_finite()) is not None:
        return f"the training loss is not finite at step {step}"
    limit = broken_limit(job.config.ingest)
    return QUARANTINE if broken > limit * job.num_videos or broken_val > limit * job.num_val_videos else None


def _checkpoint_due(job: TrainJob, recipe: Recipe, summary: EpochSummary) -> bool:
    ended = summary.step == recipe.total_steps
    return ended or (summary.epoch + 1) % job.config.execution.checkpoint_every_epochs == 0


def _report(report: Report, job: TrainJob, state: TrainState, *, save: bool, first: bool) -> None:
    if not save:
        ray.train.report(report)
        return
    # Names are unique, so that a step repeated after a failure never meets the files of its first time.
    name = f"epoch-{state.cursor.epoch:04d}-step-{state.cursor.step:06d}-{uuid.uuid4().hex[:8]}" if first else None
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if first:
            save_checkpoint(Path(folder), state, config=job.config, data_fingerprint=job.data_fingerprint)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(report, checkpoint=checkpoint, checkpoint_dir_name=_agreed(name))


def _agreed(name: str | None) -> str | None:
    """The first worker's name for a checkpoint, on all workers."""
    names = [name]
    if dist.is_initialized():
        dist.broadcast_object_list(names, src=0)
    return names[0]


def _uses_bf16(precision: str, device: torch.device) -> bool:
    """What `train.precision` means on this worker's device; one worker without bf16 decides for all."""
    if precision != "auto":
        return precision == "bf16"
    has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if not dist.is_initialized():
        return has
    agreed = torch.tensor(int(has), device=device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
    return bool(agreed)


def _facts(device: torch.device, workers: int, *, bf16: bool) -> dict[str, str]:
    """What only the training nodes know, for the record."""
    where = f"{workers} x {torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"{workers} CPU workers"
    return {Tags.PRECISION: "bf16" if bf16 else "fp32", Tags.TRAINED_ON: where}


def _recipe(job: TrainJob, clips: RayClips, *, bf16: bool) -> Recipe:
    config = job.config
    return Recipe(
        plan=clips.plan,
        mixing=config.mixing,
        optim=config.optim,
        epochs=config.train.epochs,
        max_steps=config.train.max_steps,
        clips_per_video=config.augment.repeats,
        num_classes=config.model.num_classes,
        bf16=bf16,
    )


def _parallel(model: nn.Module, workers: int) -> nn.Module:
    if workers == 1:
        return model
    # BatchNorm's statistics are gathered by the loop; broadcasting the first worker's would undo that.
    return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def _over_workers(counts: ScoreCounts, device: torch.device) -> ScoreCounts:
    numbers = torch.tensor(astuple(counts), dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(numbers)
    videos, top1, top5, loss = numbers.tolist()
    return ScoreCounts(num_videos=int(videos), top1_hits=int(top1), top5_hits=int(top5), loss_sum=loss)


def _choose_activation_checkpointing(
    job: TrainJob, state: TrainState, device: torch.device, *, bf16: bool, local_workers: int
) -> list[str]:
    """Switch recomputation on where it was asked for, or where a micro-batch wouldn't fit; returns what to say."""
    choice = job.config.execution.activation_checkpointing
    if choice != "auto":
        state.model.set_activation_checkpointing(choice == "on")
        return []
    clip, train = job.config.clip, job.config.train
    needed = activation_bytes(
        job.config.model,
        num_frames=clip.num_frames,
        crop_size=clip.crop_size,
        clips=train.micro_batch_size * job.config.augment.repeats,
    ) // (2 if bf16 else 1)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // local_workers
    if needed <= ACTIVATION_MEMORY_SHARE * memory:
        return []
    state.model.set_activation_checkpointing(True)
    return [
        f"activations of a micro-batch take about {needed / 2**30:.1f} GiB of a worker's {memory / 2**30:.1f} GiB: "
        "blocks are recomputed in the backward pass (execution.activation_checkpointing)"
    ]
