"""One experiment from configuration to record: check, train, test, write down.

Pipelines and sweep trials call this; Ray is already running when they do.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.cluster.ray_nodes import ray_job_tag, was_submitted
from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import fingerprint
from morphmlp.data.quarantine import Quarantine
from morphmlp.data.stream.ray_clips import SharedVideos
from morphmlp.data.stream.ray_first_look import require_files
from morphmlp.environment import source_tags
from morphmlp.errors import RunStoppedError, TrackingError, storage_faults_reported
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.experiment.data_splits import DataSplits, recorded_datasets
from morphmlp.experiment.model_record import log_tested_model, network_points, record_params
from morphmlp.experiment.ray_system_metrics import system_metrics_recorded
from morphmlp.experiment.ray_test import WeightsToTest, begin_test, finish_test, header_of, record_test
from morphmlp.experiment.result import ExperimentResult
from morphmlp.experiment.run_claim import claim, record_tags, with_absolute_paths
from morphmlp.models.planned_cost import experiment_cost
from morphmlp.preflight.ray_preflight import require_ready
from morphmlp.preflight.ray_shared_files import require_shared_files
from morphmlp.progress import LoggedProgress, Progress
from morphmlp.record import MetricPoint, Metrics, Status, Tags
from morphmlp.reporting.run_note import result_note
from morphmlp.start_marks import Part, StartMarks
from morphmlp.stop_signals import StopSignals
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.scores import further_scores_of
from morphmlp.tasks.task import Task
from morphmlp.tracking import RetryPolicy, RunWriter, end_early, open_run, ready_store, write_waiting
from morphmlp.training.checkpoint.saving import checkpoint_to_test
from morphmlp.training.loop.state import checkpoint_from
from morphmlp.training.record.accounting import (
    RunAccount,
    RunFacts,
    account_table,
    epoch_points,
    read_windows,
    run_account,
    training_cpu_s,
)
from morphmlp.training.record.report import read_points
from morphmlp.training.record.run_events import read_events
from morphmlp.training.record.run_folder import RunFolder, run_lock
from morphmlp.training.weights.start import with_checked_weights
from morphmlp.training.workers.ray_job import TrainJob
from morphmlp.training.workers.ray_trainer import train

CURVES = (
    Metrics.TRAIN_LOSS,
    Metrics.TRAIN_EPOCH_LOSS,
    Metrics.TRAIN_ROUND_LOSS,
    Metrics.TRAIN_CLIPS_PER_S,
    Metrics.VAL_LOSS,
)
"""Metrics that figures are drawn of, besides the task's scores."""


@storage_faults_reported()
def run_experiment(
    config: ExperimentConfig,
    data: DataSplits,
    placement: Placement,
    *,
    run_name: str,
    progress: Progress,
    tags: Mapping[str, str] | None = None,
    parent_run_id: str | None = None,
    stops: StopSignals | None = None,
    on_validation: Callable[[int, float], None] | None = None,
    task: Task | None = None,
    marks: StartMarks | None = None,
) -> ExperimentResult:
    """Train, test and record one experiment, or continue it where a run of this name stopped.

    `run_name` also names its folder under `cluster.storage`; `parent_run_id` is the sweep that it belongs to. `stops`
    are signals to this process, where it takes care of them. `on_validation` is called with the epochs or steps done at
    each validation and its score, while training continues. `marks` are those of a command that does nothing else.

    Raises:
        MorphMLPError: Whatever the user can fix.
    """
    task = task or task_of(config, train=data.train)
    config = with_checked_weights(with_absolute_paths(config), data.train.class_names)
    if placement.on_cluster:
        require_shared_files(config, [data.by_split()], placement)
    require_ready(config, placement, progress)
    require_files(data.by_split(), config.ingest)
    marks = marks or StartMarks()
    marks.mark(Part.CLUSTER)
    folder = RunFolder(Path(config.cluster.storage) / run_name)
    folder.root.mkdir(parents=True, exist_ok=True)
    progress = log = LoggedProgress(progress, folder.log)
    with run_lock(folder), log.last_words():
        marks.keep_in(folder.start)
        tags = {**source_tags(submitted=was_submitted()), **(tags or {})}
        tags |= ray_job_tag() if placement.on_cluster else {}
        run = _open(config, data, folder, tags=tags, parent_run_id=parent_run_id, progress=progress)
        try:
            run.writer.datasets(recorded_datasets(config, data))
            for file in filter(Path.exists, (folder.experiment, folder.start_weights)):
                run.writer.artifact(file)
            marks.mark(Part.RECORD)
            with system_metrics_recorded(config.record, run.writer, folder, progress):
                result = _train_and_test(
                    config, task, data, placement, run=run, progress=progress, stops=stops, on_validation=on_validation
                )
            names = (*task.scores, *further_scores_of(config.task))
            run.writer.describe(result_note(result, names, run.writer.stored()[0], views=config.test_in_words))
            run.writer.finish("FINISHED")
            log.keep(result.in_words(config.test_in_words, task.scores))
        except BaseException as error:
            ended: Status = "KILLED" if isinstance(error, KeyboardInterrupt | RunStoppedError) else "FAILED"
            why = {} if run.is_trial else {Tags.ERROR: " ".join(str(error).split()) or type(error).__name__}
            fault = end_early(run.writer, ended, folder.record_waiting, tags=why)
            if fault is not None and not isinstance(error, TrackingError):
                progress.line(f"{fault}; continuing the run completes its record")
            raise
        return result


@dataclass(frozen=True, kw_only=True)
class _OpenRun:
    """A run at work: its files, its record, and when this command took it up."""

    folder: RunFolder
    writer: RunWriter
    began: float
    cpu_s: float
    """Of this process before, seconds."""
    is_trial: bool
    """One of a sweep's many, of which the user gets a line and no table."""


def _open(
    config: ExperimentConfig,
    data: DataSplits,
    folder: RunFolder,
    *,
    tags: Mapping[str, str],
    parent_run_id: str | None,
    progress: Progress,
) -> _OpenRun:
    began, cpu_s = time.monotonic(), time.process_time()
    uri = ready_store(config.dataset)
    known = claim(config, data, folder, uri)
    run_id = open_run(
        uri,
        experiment=config.dataset,
        run_name=folder.root.name,
        tags={
            **record_tags(config, data),
            **({Tags.ERROR: ""} if known is not None and Tags.ERROR in known.tags else {}),
            **tags,
        },
        params=record_params(config),
        parent_run_id=parent_run_id,
    )
    writer = RunWriter(uri, run_id, retry=RetryPolicy(log=progress.line, kept_in=folder.root))
    if known is None and (earlier := read_points(folder.progress)):
        progress.line(
            f"the record of {folder.root.name} isn't there any more; it's written anew from {folder.progress}"
        )
        writer.metrics(earlier)
    return _OpenRun(folder=folder, writer=writer, began=began, cpu_s=cpu_s, is_trial=parent_run_id is not None)


def _train_and_test(
    config: ExperimentConfig,
    task: Task,
    data: DataSplits,
    placement: Placement,
    *,
    run: _OpenRun,
    progress: Progress,
    stops: StopSignals | None,
    on_validation: Callable[[int, float], None] | None,
) -> ExperimentResult:
    folder, writer = run.folder, run.writer
    writer.metrics(network_points(config))
    job = TrainJob(
        config=config,
        task=task,
        folder=folder,
        videos=SharedVideos.of(train=data.train, val=data.val),
        placement=placement,
        num_videos=len(data.train),
        num_val_videos=len(data.val),
        data_fingerprint=data.fingerprints["train"],
        gmacs_per_view=experiment_cost(config).gmacs,
    )
    for note in (*data.notes, *task.notes(data.train)):
        progress.line(note)
    placement = train(job, writer, progress, stops=stops, on_validation=on_validation)
    write_waiting(folder.record_waiting, writer)
    result = _test(job, data, run, progress, placement=placement)
    writer.metrics(
        [MetricPoint.now(Metrics.RUN_WALL_S, result.wall_s), MetricPoint.now(Metrics.RUN_CPU_S, result.cpu_s)]
    )
    return result


def _test(
    job: TrainJob, data: DataSplits, run: _OpenRun, progress: Progress, *, placement: Placement
) -> ExperimentResult:
    """Test what a training ended with; its account is recorded while the scorers start, which takes them seconds."""
    config, task, folder, writer = job.config, job.task, run.folder, run.writer
    checkpoint, content, which = checkpoint_to_test(config, folder, task.scores[0], progress.line)
    weights = WeightsToTest(
        tensors=checkpoint_from(content).weights,
        location=checkpoint.location,
        run_id=writer.run_id,
        run_name=folder.root.name,
    )
    header = header_of(weights, data.test, config=config)
    with ScoreStore.create(folder.scores, header, or_anew=True) as store:
        scoring = begin_test(task, weights, data.test, store=store, config=config, placement=placement)
        account = _record_training(job, run)
        for line in account_table(account).splitlines() if not run.is_trial else [account.verdict()]:
            progress.line(line)
        writer.tags({Tags.TESTED: which, Tags.WEIGHTS: header.weights_sha256})
        tested = finish_test(scoring, config=config, progress=progress)
        counts, intervals = record_test(
            tested, data.test, store=store, task=task, config=config, writer=writer, folder=folder
        )
    scores = counts.scores()
    if folder.events.exists():
        writer.artifact(folder.events)
    if config.record.logs_model and not run.is_trial:
        step = checkpoint.facts.step
        model = log_tested_model(config, weights.tensors, data, scores=scores, step=step, writer=writer)
        progress.line(f"logged as MLflow model models:/{model}")
    return ExperimentResult(
        run_id=writer.run_id,
        run_name=folder.root.name,
        fingerprint=fingerprint(config),
        checkpoint=checkpoint.location,
        tested=which,
        score=scores[task.scores[0].key],
        scores=scores,
        intervals=intervals,
        num_videos=int(counts.num_videos),
        items=data.test.items,
        num_quarantined=len(tested.broken),
        quarantined={split: len(Quarantine.read(folder.quarantine).videos(split)) for split in data.by_split()},
        unscored=tuple(f"{video.video_id} ({video.path}): {video.message}" for video in tested.broken),
        wall_s=time.monotonic() - run.began,
        cpu_s=training_cpu_s(read_windows(folder.progress)) + tested.cpu_s + time.process_time() - run.cpu_s,
        clips_per_s=account.clips_per_s,
    )


def _record_training(job: TrainJob, run: _OpenRun) -> RunAccount:
    """Curves, and what the training took."""
    from morphmlp.reporting.figures import loss_figure, score_figure, time_figure  # noqa: PLC0415 (matplotlib)

    names, unit = job.task.scores, job.config.train.unit
    history = run.writer.history([*CURVES, *(name.val_metric for name in names)])
    run.writer.figure(loss_figure(history, unit=unit), "figures/loss.png")
    scores = score_figure(history, names, unit=unit)
    run.writer.figure(scores, "figures/accuracy.png")
    run.writer.thumbnail(scores, "accuracy")
    windows = read_windows(run.folder.progress)
    placement, cluster = job.placement, job.config.cluster
    facts = RunFacts(
        device="cuda" if placement.device == "cuda" else "cpu",
        gmacs_per_view=job.gmacs_per_view,
        cpus_per_worker=placement.cpus_per_worker,
        ingest_cpus=placement.ingest_cpus,
        gpu_hour_price=cluster.gpu_hour_price,
        cpu_hour_price=cluster.cpu_hour_price,
        unit=unit,
        ingest_lost=any(event.ingest_lost for event in read_events(run.folder.events)),
    )
    account = run_account(windows, facts)
    run.writer.figure(time_figure(windows), "figures/time.png")
    run.writer.metrics([*epoch_points(windows, facts), *account.points()])
    run.writer.tags({Tags.VERDICT: account.verdict()})
    return account
