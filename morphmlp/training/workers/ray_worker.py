"""The function that runs on every training worker: build, restore, iterate, save, report."""

import json
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.data.quarantine import broken_limit, too_many_broken
from morphmlp.data.stream.ray_clips import RayClips, SharedVideos
from morphmlp.data.stream.ray_dataset import warm_decode_processes
from morphmlp.errors import StorageError
from morphmlp.evaluation.scoring import score_single_views
from morphmlp.line_file import LineFile
from morphmlp.record import Tags
from morphmlp.tasks.task import Counts, Task
from morphmlp.training.checkpoint.saving import Saving, run_store
from morphmlp.training.checkpoint.store import CheckpointStore, StoredCheckpoint
from morphmlp.training.loop.device_choices import agreed_precision, prepare_network
from morphmlp.training.loop.loop import EpochSummary, Recipe, StepSummary, TrainClips, fit
from morphmlp.training.loop.state import Precision, TrainState, checkpoint_from, new_state, restore
from morphmlp.training.loop.step_guard import SkippedStep, StepGuard
from morphmlp.training.record.ledger import Ledger, RecordedClips
from morphmlp.training.record.report import Report, Reporter
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.replay.skipped_steps import save_skipped_step
from morphmlp.training.weights.start import start
from morphmlp.training.workers.ray_capacity import note_places
from morphmlp.training.workers.stops import Stop, StopReason, StopWatch, requested_stop

Value = TypeVar("Value")
READ_AGAIN_S = 10.0
"""Between two tries to read storage that fails, seconds."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything that a worker needs; plain values, so that it travels."""

    config: ExperimentConfig
    task: Task
    folder: RunFolder
    videos: SharedVideos
    placement: Placement
    num_videos: int
    """Available videos of the training manifest."""
    num_val_videos: int
    data_fingerprint: str
    """Of the training manifest's available videos."""
    gmacs_per_view: float
    """Billion multiply-accumulates of a forward pass of one view."""


def train_worker(job: TrainJob) -> None:
    """Train on this worker until the plan ends or the run is stopped, saving and reporting along the way."""
    config, context = job.config, ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    if rank == 0:
        note_places(job.folder.places)
    device = ray.train.torch.get_device()
    torch.set_num_threads(job.placement.cpus_per_worker)
    share = job.placement.ingest_share(config.ingest, pipelines=workers)
    warm_decode_processes(share)
    clips = RayClips.of(
        job.videos,
        share,
        clip=config.clip,
        augment=config.augment,
        train=config.train,
        device=device,
        worker=rank,
        num_workers=workers,
    )
    precision = agreed_precision(config.train.precision, device)
    state = new_state(job.task, train=config.train, optim=config.optim, device=device, precision=precision)
    store = run_store(config, job.folder)
    restored, notes = _resume_or_start(job, state, store, clips, first=rank == 0)
    notes += prepare_network(config, state.model, device, state.precision, local_workers=context.get_local_world_size())
    saving = None
    if rank == 0:
        saving = Saving(
            state,
            store,
            config=config,
            data_fingerprint=job.data_fingerprint,
            recipe=Recipe.of(config, plan=clips.plan, task=job.task),
            restored=restored,
        )
    worker = _Worker(job, state, clips, saving, workers=workers, device=device)
    worker.report_start(notes)
    network = _parallel(state.model, workers)
    source = _recorded(job, clips, first_step=clips.plan.step_of(state.cursor))
    for summary in fit(state, network, source, recipe=worker.recipe, device=device, guard=worker.guard):
        if worker.stops_after(summary):
            return
    worker.finish()


class _Worker:
    """One worker's books: what to report, what to save, and whether to go on."""

    def __init__(
        self,
        job: TrainJob,
        state: TrainState,
        clips: RayClips,
        saving: Saving | None,
        *,
        workers: int,
        device: torch.device,
    ) -> None:
        """See `train_worker`; `saving` is the first worker's."""
        self._job, self._state, self._clips, self._saving = job, state, clips, saving
        self._workers, self._device = workers, device
        self.recipe = Recipe.of(job.config, plan=clips.plan, task=job.task)
        self._reporter = Reporter(recipe=self.recipe, first=saving is not None, gmacs_per_view=job.gmacs_per_view)
        watch = None if saving is None else StopWatch(job.folder.stop_request)
        self.guard = StepGuard(
            max_in_a_row=job.config.execution.max_skipped_steps,
            loss_scaling=state.precision == "fp16",
            wants_to_stop=lambda: watch is not None and watch.seen(),
            on_skipped=self._keep_skipped,
        )
        self._epoch_videos, self._broken_before = 0, 0.0
        """Training videos planned in this epoch's steps so far, over all workers; broken ones of earlier epochs."""
        self._notes: list[str] = []
        self._progress = LineFile(job.folder.progress)

    def report_start(self, notes: list[str]) -> None:
        """Tell that this worker is ready, and what is to be known of it."""
        self._reporter.add_start(self._workers, self.recipe.plan.step_of(self._state.cursor))
        report = self._reporter.take()
        if self._saving is not None:
            report |= {"notes": notes, "facts": _facts(self._device, self._workers, self._state.precision)}
        ray.train.report(report)

    def stops_after(self, summary: StepSummary | EpochSummary) -> bool:
        """Do what is due after a step or an epoch; whether all workers stop here."""
        broken_val, node_leaves = None, False
        if isinstance(summary, StepSummary):
            self._reporter.add_step(summary)
            self._epoch_videos += self.recipe.plan.videos_per_step
            if self._state.cursor.step == 0 or summary.step + 1 == self.recipe.total_steps:
                return False  # the epoch's end follows; saved before its scores are there, these could be lost
            if self._saving is not None:
                self._saving.after_step()
            stops = self.guard.stop_requested or self.guard.gave_up or self._broken_train() is not None
            if (summary.step + 1) % self._job.config.execution.report_every_steps and not stops:
                return False
            node_leaves = _node_leaves()
        else:
            broken_val = self._end_epoch(summary)
        stop = self._stop(broken_val) or (Stop(reason=StopReason.NODE_LEAVES) if node_leaves else None)
        if isinstance(summary, EpochSummary):
            self._epoch_videos, self._broken_before = 0, self.guard.broken_videos
        if stop is not None:
            self._save_and_stop(stop)
        self._report()
        if stop is not None:
            ray.train.report(Report(stopped=stop.to_plain()))
        return stop is not None

    def finish(self) -> None:
        """Wait for the last checkpoint of a whole training."""
        if self._saving is not None:
            self._saving.finish(hurry=self._is_to_end, log=self._tell_now)
        self._report()

    def _save_and_stop(self, stop: Stop) -> None:
        """Save what there is. Storage that fails keeps no run from ending; a restart would take steps again."""
        if self._saving is None:
            return
        grows = stop.reason is StopReason.MORE_WORKERS
        self._saving.save(required=True)
        try:
            self._saving.finish(hurry=lambda: not grows or self._is_to_end(), log=self._tell_now)
        except StorageError as error:
            if grows and not self._is_to_end():
                raise
            self._notes.append(f"stopping without a checkpoint of this step: {error}")

    def _is_to_end(self) -> bool:
        """Whether somebody wants the run to end, and not only to go on with more workers."""
        asked = requested_stop(self._job.folder.stop_request)
        return asked is not None and asked.reason is not StopReason.MORE_WORKERS

    def _tell_now(self, note: str) -> None:
        """A line for the user between two reports, which wait for all workers."""
        self._progress.append(json.dumps({"notes": [note]}))

    def _end_epoch(self, summary: EpochSummary) -> str | None:
        """Validate where it is due, and save; returns how many validation videos are broken, where that is too many."""
        self._reporter.add_epoch(summary)
        if self._broken_train() is not None:
            return None
        epoch, execution = summary.epoch + 1, self._job.config.execution
        counts, broken = self._job.task.no_counts(), None
        if summary.step == self.recipe.total_steps or epoch % execution.validate_every_epochs == 0:
            counts, broken = self._validate(epoch)
        if self._saving is not None:
            score = counts.scores()[self._job.task.scores[0].key] if counts.num_videos else None
            self._saving.after_epoch(epoch, score=score)
        return broken

    def _validate(self, epoch: int) -> tuple[Counts, str | None]:
        """The scores; or none, and how many videos are broken, where that is too many."""
        model, averaged = self._state.model, self._state.averaged
        with averaged.in_place_of(model) if averaged is not None else nullcontext():
            clips = self._reporter.validation_clips(self._clips.validation())
            counts, broken = score_single_views(
                model,
                clips,
                task=self._job.task,
                device=self._device,
                too_many=lambda broken: self._broken_val(broken) is not None,
            )
        counts, num_broken = _over_workers(counts, len(broken), self._device)
        excess = self._broken_val(num_broken)
        if excess is not None:
            counts = self._job.task.no_counts()
        self._reporter.add_validation(counts, broken, epoch=epoch)
        return counts, excess

    def _broken_train(self) -> str | None:
        """How many of this epoch's training videos are broken, where that is too many; all workers say the same."""
        job = self._job
        return too_many_broken(
            "train",
            int(self.guard.broken_videos - self._broken_before),
            num_videos=job.num_videos,
            limit=broken_limit(job.config.ingest),
            drawn=self._epoch_videos,
        )

    def _broken_val(self, broken: int) -> str | None:
        """The same of validation; one worker's own may be enough."""
        job = self._job
        return too_many_broken("val", broken, num_videos=job.num_val_videos, limit=broken_limit(job.config.ingest))

    def _stop(self, broken_val: str | None) -> Stop | None:
        """Why the run can't go on; decided from numbers over all workers, so that all of them stop together."""
        job = self._job
        if (excess := self._broken_train()) is not None:
            return Stop(reason=StopReason.TOO_MANY_BROKEN, split="train", detail=excess)
        if broken_val is not None:
            return Stop(reason=StopReason.TOO_MANY_BROKEN, split="val", detail=broken_val)
        if self.guard.gave_up:
            last = self.guard.last_skipped
            return Stop(reason=StopReason.DIVERGED, step=None if last is None else last.step + 1)
        if self.guard.stop_requested:
            return requested_stop(job.folder.stop_request) or Stop(reason=StopReason.REQUESTED)
        return None

    def _keep_skipped(self, skipped: SkippedStep) -> None:
        if self._saving is not None:
            self._notes += save_skipped_step(
                self._job.folder.skipped_steps,
                skipped,
                self._state,
                config=self._job.config,
                data_fingerprint=self._job.data_fingerprint,
                plan=self.recipe.plan,
                videos=self._clips.train_videos,
                num_workers=self._workers,
            )

    def _report(self) -> None:
        report = self._reporter.take()
        if self._saving is not None:
            report["notes"] = [*self._notes, *self._saving.notes()]
            self._notes = []
        ray.train.report(report)


def _resume_or_start(
    job: TrainJob, state: TrainState, store: CheckpointStore, clips: RayClips, *, first: bool
) -> tuple[StoredCheckpoint | None, list[str]]:
    """Continue from the newest whole checkpoint, the same one on all workers; without one, begin as configured.

    Returns:
        The checkpoint, on the first worker; and lines for the user.
    """
    notes: list[str] = []
    found, name = _newest(job, store, notes, first=first)
    if name is None:
        names = clips.train_videos.class_names
        return None, [*notes, *start(state, job.config, names, data_fingerprint=job.data_fingerprint)]
    content = found[1] if found is not None else store.read(name)
    restore(state, checkpoint_from(content), config=job.config, data_fingerprint=job.data_fingerprint)
    return found[0] if found is not None else None, [*notes, f"continuing from {name}"]


def _newest(
    job: TrainJob, store: CheckpointStore, notes: list[str], *, first: bool
) -> tuple[tuple[StoredCheckpoint, dict[str, Any]] | None, str | None]:
    """The newest checkpoint, on the first worker, and its name on all; storage that can't be read is waited for.

    Raises:
        StorageError: It can't be read for longer than `checkpoint.wait_for_storage_s`.
    """
    patience_s, begun = job.config.checkpoint.wait_for_storage_s, time.monotonic()
    told = False
    while True:
        found, fault, lines = None, None, list[str]()
        try:
            found = store.newest(lines.append) if first else None
        except StorageError as error:
            if time.monotonic() - begun >= patience_s:
                raise
            fault = str(error)
        name, waits = _agreed((None if found is None else found[0].name, fault is not None))
        if not waits:
            notes += lines
            return found, name
        if fault is not None and not told:
            told = True
            waiting = f"{fault}; waiting up to {patience_s:.0f} s for it (checkpoint.wait_for_storage_s)"
            LineFile(job.folder.progress).append(json.dumps({"notes": [waiting]}))
        time.sleep(min(READ_AGAIN_S, patience_s))


def _recorded(job: TrainJob, clips: RayClips, *, first_step: int) -> TrainClips:
    """The clips, written to the run's ledger where it keeps one."""
    if not job.config.execution.ledger:
        return clips
    ledger = Ledger(job.folder.ledger, worker=clips.worker, num_workers=clips.num_workers, first_step=first_step)
    return RecordedClips(clips, ledger, clips.plan, clips.train_videos)


def _node_leaves() -> bool:
    """Whether the cluster has announced that a worker's node goes; all workers ask together."""
    watched = os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") != "0"
    return watched and ray.train.get_preemption_info() is not None


def _agreed(value: Value) -> Value:
    """The first worker's value, on all workers."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def _facts(device: torch.device, workers: int, precision: Precision) -> dict[str, str]:
    """What only the training nodes know, for the record."""
    where = f"{workers} x {torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"{workers} CPU workers"
    return {Tags.PRECISION: precision, Tags.TRAINED_ON: where}


def _parallel(model: nn.Module, workers: int) -> nn.Module:
    if workers == 1:
        return model
    # BatchNorm's statistics are gathered by the loop; broadcasting the first worker's would undo that.
    return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def _over_workers(counts: Counts, broken: int, device: torch.device) -> tuple[Counts, int]:
    """The counts of all workers, and how many videos were broken."""
    packed = torch.cat([counts.pack(), torch.tensor([broken], dtype=torch.float64)]).to(device)
    if dist.is_initialized():
        dist.all_reduce(packed)
    packed = packed.cpu()
    return counts.unpack(packed[:-1]), int(packed[-1])
