"""The driver's side of training: starts of Ray's workers, what kind of end each had, and the record, under supervision.

Ray Train restarts nothing here: what to do next is decided in `supervision.py`.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace

import ray
import ray.train
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from morphmlp.cluster.failure_reasons import failure_reason, failure_text, root_failure, users_fault
from morphmlp.cluster.ray_cluster import Placement
from morphmlp.cluster.ray_decoding import keep_statistics_here
from morphmlp.config.operation import IngestConfig
from morphmlp.data.quarantine import Quarantine, broken_limit
from morphmlp.data.stream.plan import TrainPlan
from morphmlp.errors import ClusterError, DivergenceError, MorphMLPError, TrackingError
from morphmlp.progress import Progress
from morphmlp.stop_signals import StopSignals
from morphmlp.targets import ascii_name
from morphmlp.tracking import BufferedWriter, RunWriter
from morphmlp.training.record.run_events import RunEvents, read_events, record_event
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers.kept_memory import memory_settings
from morphmlp.training.workers.ray_capacity import NOTICE_S, Capacity, alive_nodes, free_places, lost_node
from morphmlp.training.workers.ray_job import TrainJob, run_job
from morphmlp.training.workers.ray_process_group import ProcessGroupConfig
from morphmlp.training.workers.ray_record import RecordReports
from morphmlp.training.workers.stops import Stop, StopReason
from morphmlp.training.workers.supervision import End, Ending, Supervisor

_EVENT_WAIT_S = 5.0
"""Time for the record to take an event before the workers start again."""
_NEVER_STARTED = (
    "WorkerGroupStartupTimeoutError",
    "WorkerGroupStartupFailedError",
    "InsufficientClusterResourcesError",
)
"""Names of the controller's reasons that mean: no workers. Ray keeps the classes to itself."""


def train(
    job: TrainJob,
    writer: RunWriter,
    progress: Progress,
    *,
    stops: StopSignals | None = None,
    on_validation: Callable[[int, float], None] | None = None,
) -> Placement:
    """Train to the end of the plan, or continue the run that `job.folder` holds; its store has the last checkpoint.

    The job's placement is that of the first start, the one returned that of the last workers; nodes may have come and
    gone. `on_validation` is called with the epochs or steps done at each validation and its primary score.

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
    note_event = _EventNotes(writer, folder, progress).add
    stop = Supervisor(
        lambda: _start(replace(job, placement=capacity.placement), writer, progress),
        capacity,
        cluster=config.cluster,
        ingest=config.ingest,
        folder=folder,
        score=job.task.scores[0],
        unit=config.train.unit,
        progress=progress,
        stops=stops or StopSignals(),
        note_event=note_event,
        on_validation=on_validation,
        on_stop=lambda: record_stop(writer),
    ).run()
    if stop is not None and stop.reason is StopReason.NO_IMPROVEMENT:
        ended = f"ended early: {stop.detail}"
        if ended not in [event.text for event in read_events(folder.events)[-1:]]:  # by a command that was killed then
            note_event(ended, False)
    elif stop is not None:
        raise _fault(stop, folder, ingest=config.ingest, max_skipped=config.execution.max_skipped_steps)
    return capacity.placement


def _start(job: TrainJob, writer: RunWriter, progress: Progress) -> "Fit":
    """Start the workers that `job.placement` has."""
    placement, data = job.placement, job.config.data
    workers = "1 training worker" if placement.num_workers == 1 else f"{placement.num_workers} training workers"
    progress.line(f"starting {workers} on {placement.device}")
    return Fit(job, RecordReports(writer, job.folder, manifests=(data.train, data.val)))


class _EventNotes:
    """Where events of a run are noted: its file, the record, and the terminal."""

    def __init__(self, writer: RunWriter, folder: RunFolder, progress: Progress) -> None:
        self._writer, self._progress = writer, progress
        self._waiting = folder.record_waiting
        self._events = RunEvents(folder.events)

    def add(self, text: str, ingest_lost: bool) -> None:
        """Note an event; where the store doesn't answer now, the record of the workers passes it on."""
        writer = RunWriter(self._writer.uri, self._writer.run_id)
        waiting = BufferedWriter(writer, self._waiting, log=self._progress.line)
        record_event(waiting, self._events.add(text, ingest_lost=ingest_lost))
        waiting.close(_EVENT_WAIT_S)
        self._progress.line(text)


def record_stop(writer: RunWriter) -> threading.Thread:
    """Write down that the run is stopped, next to the workers' saving: `ray job stop` may end all of it in 3 s.

    What the command records when it comes to its end replaces it.
    """

    def write() -> None:
        with contextlib.suppress(TrackingError):  # the end of the command tries again, and reports it
            RunWriter(writer.uri, writer.run_id).finish("KILLED")

    thread = threading.Thread(target=write, name="record-stop", daemon=True)
    thread.start()
    return thread


def _fault(stop: Stop, folder: RunFolder, *, ingest: IngestConfig, max_skipped: int) -> MorphMLPError:
    """What the user has to know of workers that gave up."""
    if stop.reason is StopReason.TOO_MANY_BROKEN:
        found = Quarantine.read(folder.quarantine)
        return found.limit_error(stop.split, stop.detail, limit=broken_limit(ingest))
    from morphmlp.training.replay.skipped_steps import replay_hint  # noqa: PLC0415 (torch, which a command may not have)

    last = "" if stop.step is None else f", the last one step {stop.step}; {replay_hint(folder.root, stop.step)}"
    return DivergenceError(
        f"{max_skipped} steps in a row had a loss or gradient that isn't finite "
        f"(execution.max_skipped_steps){last}; lower optim.lr or optim.clip_norm, and use another --run-name"
    )


class Fit(threading.Thread):
    """Runs the workers next to the main thread, which stays free for progress and signals."""

    def __init__(self, job: TrainJob, record: RecordReports) -> None:
        """Start the workers that `job.placement` has."""
        super().__init__(name="fit", daemon=True)
        self._job, self._record = job, record
        self._error: BaseException | None = None
        self._nodes = alive_nodes()
        if job.placement.on_cluster:
            keep_statistics_here()
        job.folder.places.unlink(missing_ok=True)
        self.start()

    def run(self) -> None:
        """Stay in `fit`; its error is kept for `end`."""
        try:
            _trainer(self._job, self._record).fit()
        except BaseException as error:  # noqa: BLE001 (judged in the main thread)
            self._error = error

    def end(self) -> End:
        """How it ended; waits for the end, and for the cluster's word on its nodes.

        Raises:
            ClusterError: The workers' controller failed before it was known which places it holds.
            Exception: A defect outside the workers.
        """
        self.join()
        if (error := self._error) is None:
            return End(ending=Ending.RETURNED)
        if isinstance(error, ray.train.PreemptionError):
            return End(ending=Ending.NODE_LOST, reason="a node was taken away")
        if not isinstance(error, ray.train.WorkerGroupError):
            return self._end_of_controller(error)
        failures = [root_failure(failure) for failure in error.worker_failures.values()]
        if self._lost_node(failures):
            return End(ending=Ending.NODE_LOST, reason="a node is gone")
        return End(
            ending=Ending.FAILED,
            reason=failure_text(error.worker_failures),
            fault=next(filter(None, map(users_fault, failures)), None),
        )

    def _end_of_controller(self, error: BaseException) -> End:
        """The workers ended with what leads them: Ray Train's controller, or what it needs of Ray."""
        failure = root_failure(error)
        if type(failure).__name__ in _NEVER_STARTED:
            return End(ending=Ending.NOT_STARTED, reason=str(failure).strip().splitlines()[0])
        if not isinstance(error, ray.train.ControllerError | RayError):
            raise error
        reason = f"the controller of the workers failed: {failure_reason(failure)}"
        if isinstance(error, RayError) and not free_places(self._job.folder.places):
            raise ClusterError(f"training failed: {reason}; the same command continues from the last checkpoint")
        return End(ending=Ending.FAILED, reason=reason, fault=users_fault(failure), recorded=False)

    def _lost_node(self, failures: list[BaseException]) -> bool:
        if any(getattr(failure, "preempted", False) for failure in failures):
            return True
        if any(isinstance(failure, MorphMLPError) for failure in failures):
            return False
        # A dead process is known at once. A silent one, and a survivor's broken connection (a RuntimeError), can mean
        # that its node is gone; the cluster notices that later.
        unclear = self._job.placement.on_cluster and not any(isinstance(error, ActorDiedError) for error in failures)
        broken = unclear and any(isinstance(error, RuntimeError | ActorUnavailableError) for error in failures)
        return lost_node(self._nodes, wait_s=NOTICE_S if broken else 0)


class _Trainer(DataParallelTrainer):
    """Ray's own, without processes that only data sets of Ray Train's and controllers that nobody follows need."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [each for each in super()._create_default_callbacks() if type(each).__name__ not in NEEDLESS]


NEEDLESS = (
    "DatasetsCallback",  # starts a process for data sets, also where there are none; ours are each worker's
    "PlacementGroupCleanerCallback",  # and one that frees a dead controller's places, as `Fit` does
)
"""Ray Train's names of what it does around the workers' life by default. Each process costs seconds of imports."""


def _trainer(job: TrainJob, record: RecordReports) -> DataParallelTrainer:
    placement, root = job.placement, job.folder.root
    settings = memory_settings(job.config, placement.device)
    return _Trainer(
        run_job,
        # A reference: the controller, which gets it too, needn't read the job, and import what that names.
        train_loop_config={"job": ray.put(job)},
        backend_config=ProcessGroupConfig(
            backend="nccl" if placement.device == "cuda" else "gloo", timeout_s=job.config.ingest.others_wait_s
        ),
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]  # Ray's hints name Train v1's
            num_workers=placement.num_workers,
            use_gpu=placement.device == "cuda",
            # A worker holds its CPUs for the whole run; decoding needs others (docs/decisions/0003).
            resources_per_worker=placement.worker_resources,
            label_selector=dict(placement.worker_labels) or None,
        ),
        run_config=ray.train.RunConfig(
            # Ray fails at other names. What it writes here is only the mark that it could.
            name=ascii_name(root.name),
            storage_path=str(root.resolve() / ".ray"),
            failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]  # as above
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
            worker_runtime_env={"env_vars": settings} if settings else None,
            callbacks=[record],  # type: ignore[list-item]  # as above
        ),
    )
