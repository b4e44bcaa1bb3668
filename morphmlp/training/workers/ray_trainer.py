"""The driver's side of training: Ray's workers and the record put under supervision."""

from collections.abc import Callable
from dataclasses import replace

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config.operation import IngestConfig
from morphmlp.data.quarantine import Quarantine, broken_limit
from morphmlp.data.stream.plan import TrainPlan
from morphmlp.errors import DivergenceError, MorphMLPError
from morphmlp.progress import Progress
from morphmlp.stop_signals import StopSignals
from morphmlp.tracking import BufferedWriter, RunWriter
from morphmlp.training.record.run_events import RunEvents, read_events, record_event
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.replay.skipped_steps import replay_hint
from morphmlp.training.workers.ray_capacity import Capacity
from morphmlp.training.workers.ray_fit import Fit
from morphmlp.training.workers.ray_record import RecordReports
from morphmlp.training.workers.ray_worker import TrainJob
from morphmlp.training.workers.stops import Stop, StopReason
from morphmlp.training.workers.supervision import Supervisor

_EVENT_WAIT_S = 5.0
"""Time for the record to take an event before the workers start again."""


def train(
    job: TrainJob,
    writer: RunWriter,
    progress: Progress,
    *,
    stops: StopSignals | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Placement:
    """Train to the end of the plan, or continue the run that `job.folder` holds; its store has the last checkpoint.

    The job's placement is that of the first start. `on_epoch` is called with each validated epoch and its primary
    score.

    Returns:
        The place of the last workers; nodes may have come and gone.

    Raises:
        RunStoppedError: A stop was asked for; the workers have saved.
        QuarantineLimitError: Too many training videos are broken.
        DivergenceError: Losses or gradients are no longer numbers.
        ClusterError: Workers failed or nodes were lost too often, or there are no workers to be had.
        MorphMLPError: What a worker raised again after a restart.
    """
    config, folder = job.config, job.folder
    capacity = Capacity(
        job.placement,
        cluster=config.cluster,
        ingest=config.ingest,
        micro_batches=TrainPlan.of(config.train, num_videos=job.num_videos).micro_batches_per_step,
    )

    def start() -> Fit:
        now = capacity.placement
        workers = "1 training worker" if now.num_workers == 1 else f"{now.num_workers} training workers"
        progress.line(f"starting {workers} on {now.device}")
        record = RecordReports(writer, folder, manifests=(config.data.train, config.data.val))
        return Fit(replace(job, placement=now), record)

    def note_event(text: str) -> None:
        # Where the store doesn't answer now, the record of the next workers passes it on.
        waiting = BufferedWriter(RunWriter(writer.uri, writer.run_id), folder.record_waiting, log=progress.line)
        record_event(waiting, RunEvents(folder.events).add(text))
        waiting.close(_EVENT_WAIT_S)
        progress.line(text)

    stop = Supervisor(
        start,
        capacity,
        cluster=config.cluster,
        folder=folder,
        score=job.task.scores[0],
        progress=progress,
        stops=stops or StopSignals(),
        note_event=note_event,
        on_epoch=on_epoch,
    ).run()
    if stop is not None and stop.reason is StopReason.NO_IMPROVEMENT:
        ended = f"ended early: {stop.detail}"
        if ended not in [event.text for event in read_events(folder.events)[-1:]]:  # by a command that was killed then
            note_event(ended)
    elif stop is not None:
        raise _fault(stop, folder, ingest=config.ingest, max_skipped=config.execution.max_skipped_steps)
    return capacity.placement


def _fault(stop: Stop, folder: RunFolder, *, ingest: IngestConfig, max_skipped: int) -> MorphMLPError:
    """What the user has to know of workers that gave up."""
    if stop.reason is StopReason.TOO_MANY_BROKEN:
        found = Quarantine.read(folder.quarantine)
        return found.limit_error(stop.split, stop.detail, limit=broken_limit(ingest))
    last = "" if stop.step is None else f", the last one step {stop.step}; {replay_hint(folder.root, stop.step)}"
    return DivergenceError(
        f"{max_skipped} steps in a row had a loss or gradient that isn't finite "
        f"(execution.max_skipped_steps){last}; lower optim.lr or optim.clip_norm, and use another --run-name"
    )
