"""The function that runs on every training worker: build, restore, iterate, save, report."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import ray.train
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.cluster.ray_decoding import warm_decode_processes
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.ray_clips import RayClips
from morphmlp.errors import StorageError
from morphmlp.evaluation.validation import over_workers, score_single_views
from morphmlp.line_file import LineFile
from morphmlp.record import Tags
from morphmlp.training.checkpoint.saving import Saving, run_store
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore, StoredCheckpoint
from morphmlp.training.loop.device_choices import agreed_precision, keep_compiled, prepare_network
from morphmlp.training.loop.loop import Recipe, RoundSummary, StepSummary, TrainClips, fit
from morphmlp.training.loop.state import Precision, TrainState, new_state
from morphmlp.training.loop.step_guard import SkippedStep, StepGuard
from morphmlp.training.record.ledger import Ledger, RecordedClips
from morphmlp.training.record.report import Report
from morphmlp.training.record.reporter import Reporter
from morphmlp.training.replay.skipped_steps import save_skipped_step
from morphmlp.training.workers.broken_share import BrokenShare
from morphmlp.training.workers.ray_capacity import note_places
from morphmlp.training.workers.ray_job import TrainJob
from morphmlp.training.workers.resume import agreed, resume_or_start
from morphmlp.training.workers.start import WorkerStart
from morphmlp.training.workers.stops import Stop, StopReason, StopWatch, requested_stop

_SIGN_EVERY_S = 30.0
"""A third of the silence of which the user hears."""


def train_worker(job: TrainJob) -> None:
    """Train on this worker until the plan ends or the run is stopped, saving and reporting along the way."""
    config, context = job.config, ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    start = WorkerStart(job.folder.start if rank == 0 else None)
    if rank == 0:
        note_places(job.folder.places)
    device = _own_device(job.placement, context)
    torch.set_num_threads(job.placement.cpus_per_worker)
    clips = _clips(job, device, worker=rank, num_workers=workers)
    precision = agreed_precision(config.train.precision, device)
    state = new_state(job.task, train=config.train, optim=config.optim, device=device, precision=precision)
    store = run_store(config.checkpoint, job.folder)
    beginning = resume_or_start(
        state,
        store,
        config=config,
        data_fingerprint=job.data_fingerprint,
        class_names=clips.train_videos.class_names,
        progress=job.folder.progress,
        first=rank == 0,
    )
    notes = [*beginning.notes, *keep_compiled(config)]
    notes += prepare_network(config, state.model, device, state.precision, local_workers=context.get_local_world_size())
    recipe = Recipe.of(config, plan=clips.plan, task=job.task)
    reporter = Reporter(
        recipe=recipe,
        first=rank == 0,
        gmacs_per_view=job.gmacs_per_view,
        broken_found=None if rank == 0 else LineFile(job.folder.broken_found),
    )
    saving = _saving(job, state, store, reporter, beginning.checkpoint) if rank == 0 else None
    worker = _Worker(job, state, clips, saving, reporter=reporter, start=start, workers=workers, device=device)
    worker.report_start(notes, beginning.unrecorded)
    start.ready()
    if (stop := worker.catch_up(beginning.facts)) is not None:
        worker.save_and_stop(stop)
        return
    source = _recorded(job, clips, first_step=clips.plan.step_of(state.cursor))
    for summary in fit(
        state, _parallel(state.model, workers), source, recipe=worker.recipe, device=device, guard=worker.guard
    ):
        if isinstance(summary, StepSummary):
            worker.on_step(summary)
        else:
            worker.on_round(summary)
        if (stop := worker.should_stop(summary)) is not None:
            worker.save_and_stop(stop)
            return
        if worker.report_is_due(summary):
            worker.report()
    worker.finish()


def _clips(job: TrainJob, device: torch.device, *, worker: int, num_workers: int) -> RayClips:
    """What this worker trains on and validates with."""
    share = job.placement.ingest_share(job.config.ingest, pipelines=num_workers)
    warm_decode_processes(share)  # while the network is made
    return RayClips.of(
        job.videos,
        share,
        train_clips=job.task.train_clips(),
        val_clips=job.task.val_clips(),
        train=job.config.train,
        device=device,
        worker=worker,
        num_workers=num_workers,
    )


def _saving(
    job: TrainJob, state: TrainState, store: CheckpointStore, reporter: Reporter, restored: StoredCheckpoint | None
) -> Saving:
    return Saving(
        state,
        store,
        config=job.config,
        data_fingerprint=job.data_fingerprint,
        recipe=reporter.recipe,
        restored=restored,
        unrecorded=reporter.unrecorded,
    )


class _Worker:
    """What a worker does around the loop: save (the first one), validate, report, and find out whether to stop."""

    def __init__(
        self,
        job: TrainJob,
        state: TrainState,
        clips: RayClips,
        saving: Saving | None,
        *,
        reporter: Reporter,
        start: WorkerStart,
        workers: int,
        device: torch.device,
    ) -> None:
        self._job, self._state, self._clips, self._saving, self._start = job, state, clips, saving, start
        self._workers, self._device = workers, device
        self._reporter, self.recipe = reporter, reporter.recipe
        watch = None if saving is None else StopWatch(job.folder.stop_request)
        self.guard = StepGuard(
            max_in_a_row=job.config.execution.max_skipped_steps,
            loss_scaling=state.precision == "fp16",
            wants_to_stop=lambda: watch is not None and watch.seen(),
            on_skipped=self._keep_skipped,
        )
        self._broken_share = BrokenShare(
            job.config.ingest, num_videos=job.num_videos, num_val_videos=job.num_val_videos
        )
        self._too_many_broken: Stop | None = None
        """Where the last step or round found so many that the run can't continue."""
        self._score: float | None = None
        """The primary score of these very weights, where they were validated."""
        self._notes: list[str] = []
        self._progress = LineFile(job.folder.progress)
        self._last_sign = time.monotonic()

    def report_start(self, notes: list[str], carried: Sequence[str] = ()) -> None:
        """Tell that this worker is ready, what is to be known of it, and what its checkpoint carries of the record."""
        self._reporter.add_start(self._workers, self._step, carried)
        report = self._reporter.take()
        if self._saving is not None:
            report |= {
                "notes": [*notes, "workers are ready; decoding the first batches"],
                "facts": _facts(self._job.placement, self._device, self._workers, self._state.precision),
            }
        ray.train.report(report)

    def catch_up(self, restored: CheckpointFacts | None) -> Stop | None:
        """Do what an earlier command owes of the round that it ended; returns why the run stops all the same.

        Where too many videos were broken it stopped between the round's last step and its score, and it may have been
        killed before it could say that training ended early. `restored` is known to the first worker alone.
        """
        step, length = self._step, self.recipe.length
        unscored = restored is not None and restored.score is None
        if agreed(unscored) and length.ends_round(step) and length.is_validated(step):
            self._close_round()
        return self._too_many_broken or self.ended_early()

    def on_step(self, summary: StepSummary) -> None:
        """Count a step, and save if it is due."""
        self._score = None
        self._sign_of_life()
        self._notes += self._start.step_taken(summary)
        self._reporter.add_step(summary)
        self._broken_share.add_step(self.recipe.plan.videos_per_step)
        # The last step of a round is saved with its scores: saved before, these could be lost.
        if not self._ends_round(summary):
            self._weigh_broken()
            if self._saving is not None:
                self._saving.after_step()

    def on_round(self, summary: RoundSummary) -> None:
        """Count a round, validate where it is due, and save."""
        self._reporter.add_round(summary)
        self._weigh_broken()
        if self._too_many_broken is None:
            self._close_round()

    def should_stop(self, summary: StepSummary | RoundSummary) -> Stop | None:
        """Why all workers stop here; decided from numbers over all of them, so that they agree."""
        if isinstance(summary, StepSummary) and self._ends_round(summary):
            return None  # validated first
        if self._too_many_broken is not None:
            return self._too_many_broken
        if self.guard.gave_up:
            last = self.guard.last_skipped
            return Stop(reason=StopReason.DIVERGED, step=None if last is None else last.step + 1)
        if self.guard.stop_requested:
            return requested_stop(self._job.folder.stop_request) or Stop(reason=StopReason.REQUESTED)
        if isinstance(summary, StepSummary) and self.report_is_due(summary) and _node_leaves():
            return Stop(reason=StopReason.NODE_LEAVES)
        return self.ended_early() if isinstance(summary, RoundSummary) else None

    def ended_early(self) -> Stop | None:
        """Why training is finished before the plan's end, with the state as it is."""
        stopping, done = self._state.early_stopping, self._step
        if stopping is None or not stopping.ended or done >= self.recipe.total_steps:
            return None
        return Stop(reason=StopReason.NO_IMPROVEMENT, detail=stopping.in_words)

    def report_is_due(self, summary: StepSummary | RoundSummary) -> bool:
        """Whether all workers report here."""
        if isinstance(summary, RoundSummary):
            return True
        return not (self._ends_round(summary) or (summary.step + 1) % self._job.config.execution.report_every_steps)

    def report(self) -> None:
        """Hand everything since the last report to the driver; waits for all workers."""
        report = self._reporter.take()
        if self._saving is not None:
            report["notes"] = [*self._notes, *self._saving.notes()]
            self._notes = []
        ray.train.report(report)

    def save_and_stop(self, stop: Stop) -> None:
        """Save what there is, report it, and say why this is the end."""
        if stop.reason is StopReason.NO_IMPROVEMENT:
            self.finish()  # saved with its score, as the last of a whole training is
        else:
            if self._saving is not None:
                self._save_at_stop(self._saving, stop)
            self.report()
        ray.train.report(Report(stopped=stop.to_plain()))

    def finish(self) -> None:
        """Wait for the last checkpoint of a training that came to its end."""
        if self._saving is not None:
            self._saving.finish(hurry=self._is_to_end, log=self._log_now)
        self.report()

    def _save_at_stop(self, saving: Saving, stop: Stop) -> None:
        """Storage that fails keeps no run from ending; a restart with more workers would take steps again."""
        grows = stop.reason is StopReason.MORE_WORKERS
        saving.save(score=self._score, required=True)
        try:
            saving.finish(hurry=lambda: not grows or self._is_to_end(), log=self._log_now)
        except StorageError as error:
            if grows and not self._is_to_end():
                raise
            self._notes.append(f"stopping without a checkpoint of this step: {error}")

    def _is_to_end(self) -> bool:
        """Whether the run is asked to end, and not only to continue with more workers."""
        self._sign_of_life()  # asked again and again while storage is waited for
        asked = requested_stop(self._job.folder.stop_request)
        return asked is not None and asked.reason is not StopReason.MORE_WORKERS

    def _log_now(self, note: str) -> None:
        """A line for the user between two reports, which wait for all workers."""
        self._progress.append(json.dumps({"notes": [note]}))

    def _sign_of_life(self) -> None:
        """An empty line where a report is long in coming: silence is taken for a fault."""
        if self._saving is not None and time.monotonic() - self._last_sign >= _SIGN_EVERY_S:
            self._last_sign = time.monotonic()
            self._progress.append("{}")

    def _with_signs(self, batches: Iterable[MicroBatch]) -> Iterator[MicroBatch]:
        for batch in batches:
            self._sign_of_life()
            yield batch

    @property
    def _step(self) -> int:
        """Steps taken so far, over all epochs."""
        return self.recipe.plan.step_of(self._state.cursor)

    def _ends_round(self, summary: StepSummary) -> bool:
        """Whether a round's end follows this step."""
        return self.recipe.length.ends_round(summary.step + 1)

    def _close_round(self) -> None:
        """Validate where it is due, and save."""
        at = self.recipe.length.at(self._step)
        if self.recipe.length.is_validated(self._step):
            self._score = self._validate(at)
        if self._score is not None and self._state.early_stopping is not None:
            self._state.early_stopping.add(at, self._score)
        if self._saving is not None:
            self._saving.after_round(score=self._score, last=self.ended_early() is not None)

    def _validate(self, at: int) -> float | None:
        """The primary score over all workers; none where nothing was scored or too many videos are broken."""
        task = self._job.task
        averaged = self._state.averaged if self._job.config.test.weights == "averaged" else None
        with averaged.in_place_of(self._state.model) if averaged is not None else nullcontext():
            counts, broken = score_single_views(
                self._state.model,
                self._reporter.validation_clips(self._with_signs(self._clips.validation())),
                task=task,
                device=self._device,
                # One worker's own may be enough.
                too_many=lambda broken: self._broken_share.of_validation(broken) is not None,
            )
        counts, num_broken = over_workers(counts, len(broken), self._device)
        self._too_many_broken = self._broken_share.of_validation(num_broken)
        if self._too_many_broken is not None:
            counts = task.no_counts()
        self._reporter.add_validation(counts, broken, at=at)
        return counts.scores()[task.scores[0].key] if counts.num_videos else None

    def _weigh_broken(self) -> None:
        """Find out whether too many videos are broken; their share begins anew with each epoch."""
        ends_epoch = self._state.cursor.step == 0
        if ends_epoch:
            self.guard.check_pending()  # of the epoch's last step
        self._too_many_broken = self._broken_share.of_training(self.guard.broken_videos)
        if ends_epoch:
            self._broken_share.begin_epoch(self.guard.broken_videos)

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


def _own_device(placement: Placement, context: ray.train.TrainContext) -> torch.device:
    """The CPU, or the GPU that is this worker's; it becomes the thread's own."""
    # As torchrun names them, for who asks; the ranks in the whole group are there already.
    os.environ |= {
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
    }
    if placement.device == "cpu":
        return torch.device("cpu")
    from ray.train.torch import get_device  # noqa: PLC0415 (a second, which workers on CPUs are spared)

    device: torch.device = get_device()
    torch.cuda.set_device(device)
    return device


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


def _facts(placement: Placement, device: torch.device, workers: int, precision: Precision) -> dict[str, str]:
    """What only the training nodes know, for the record."""
    where = f"{workers} x {torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"{workers} CPU workers"
    return {Tags.PRECISION: precision, Tags.TRAINED_ON: where, Tags.INGEST_CPUS: str(placement.ingest_cpus)}


def _parallel(model: nn.Module, workers: int) -> nn.Module:
    if workers == 1:
        return model
    # BatchNorm's statistics are gathered by the loop; broadcasting the first worker's would undo that.
    return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
