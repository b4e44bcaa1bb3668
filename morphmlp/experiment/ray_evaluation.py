"""The body of `pipelines/evaluate.py`: weights to scores in a store and in the record, with Ray started and stopped."""

import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
from pydantic import JsonValue

from morphmlp.cluster.address import require_named_cluster
from morphmlp.cluster.ray_cluster import Placement, ray_session
from morphmlp.cluster.ray_nodes import ray_job_tag, was_submitted
from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import config_to_yaml, fingerprint
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.ray_first_look import require_files
from morphmlp.environment import environment_tags, source_tags
from morphmlp.errors import ConfigError, RunStoppedError, TrackingError
from morphmlp.evaluation.ray_evaluator import TestResult, stored_result
from morphmlp.evaluation.score_header import ScoreHeader
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.experiment.data_splits import read_test_split, recorded_dataset
from morphmlp.experiment.late_record import LateRecord
from morphmlp.experiment.model_record import network_points, record_params
from morphmlp.experiment.ray_system_metrics import system_metrics_recorded
from morphmlp.experiment.ray_test import WeightsToTest, begin_test, finish_test, header_of, record_test
from morphmlp.experiment.run_claim import with_absolute_paths
from morphmlp.experiment.tested_weights import (
    FoundWeights,
    config_of,
    find_source,
    find_weights,
    fitted_weights,
    require_finished,
)
from morphmlp.files import atomic_write
from morphmlp.preflight.ray_shared_files import require_shared_files
from morphmlp.progress import LoggedProgress, Progress, TerminalProgress
from morphmlp.record import MetricPoint, Metrics, RunSummary, Status, Tags
from morphmlp.reporting.run_note import result_note
from morphmlp.start_marks import Part, StartMarks, start_in_words, start_parts
from morphmlp.stop_signals import NAMES, signal_of
from morphmlp.targets import writable_folder
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.scores import further_scores_of, scores_of
from morphmlp.tracking import RetryPolicy, RunWriter, end_early, find_run, open_run, ready_store
from morphmlp.training.record.run_folder import RunFolder

EVALUATIONS = "evaluations"
"""Folder of evaluations in `cluster.storage`."""
_OF_THE_RUN = (Tags.MODEL, Tags.START_FROM, Tags.TRAINED_ON, Tags.PRECISION, Tags.DATA_TRAIN, Tags.DATA_VAL)
"""Tags of the tested run that say of the evaluation, too, whose weights these are."""


@dataclass(frozen=True, kw_only=True)
class EvaluationArguments:
    """What was asked for."""

    checkpoint: str
    config: str | None
    overrides: Mapping[str, JsonValue]
    scores: Path | None


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What an evaluation found; the JSON of `--json`."""

    run_id: str
    run_name: str
    evaluates: str
    """MLflow id of the run whose weights were tested; empty where none is known."""
    checkpoint: str
    tested: str
    """Which checkpoint that is, in words."""
    weights_sha256: str
    store: str
    """Folder of the score store."""
    task: str
    dataset: str
    views: str
    data_fingerprint: str
    experiment_fingerprint: str
    scores: Mapping[str, float]
    """By `ScoreName.key`."""
    intervals: Mapping[str, tuple[float, float]]
    """95 % intervals, of all scores that have one."""
    num_videos: int
    items: str
    num_quarantined: int
    unscored: tuple[str, ...]
    """Each of them, with its reason."""
    num_scored_now: int
    """Videos that this command scored; the others were in the store."""
    first_scores_s: float | None
    """Seconds from Ray being ready to the first scored videos; None where all were in the store."""
    start: Mapping[str, float]
    """Seconds from the command's beginning to the first scores by part (`morphmlp.start_marks.Part`); none where all
    were in the store."""
    wall_s: float
    cpu_s: float
    """CPU core-seconds of decoding and scoring, over all commands that added to the store."""

    def in_words(self) -> str:
        """In a line."""
        names = {name.key: name for name in scores_of(self.task)}
        scores = ", ".join(name.in_words(self.scores[key], self.intervals.get(key)) for key, name in names.items())
        return (
            f"{self.run_name}: test {scores} of {self.num_videos} {self.items} ({self.views}; {self.tested}; "
            f"quarantined: {self.num_quarantined or 'none'}; scored now: {self.num_scored_now}), "
            f"{self.wall_s:.0f} s, MLflow run {self.run_id}"
        )


def evaluate(arguments: EvaluationArguments) -> EvaluationResult:
    """Score the test videos that the store lacks, and record what all of them give.

    Raises:
        RunStoppedError: By a signal; it says how to continue.
        MorphMLPError: Whatever the user can fix.
    """
    began, marks = time.monotonic(), StartMarks.of_command()
    require_named_cluster()
    with TerminalProgress() as progress:
        job = _prepare(arguments, progress)
        marks.mark(Part.CHECKS)
        try:
            return _carry_out(job, progress, marks, began=began)
        except KeyboardInterrupt as stop:
            there = len(ScoreStore.open(job.store).ids()) if (job.store / "store.json").exists() else 0
            raise RunStoppedError(
                f"stopped by {NAMES[signal_of(stop)]}; {there} of {len(job.videos)} {job.videos.items} are scored in "
                f"{job.store}; the same command continues",
                signum=signal_of(stop),
            ) from None


@dataclass(frozen=True, kw_only=True)
class _Job:
    config: ExperimentConfig
    videos: Manifest
    found: FoundWeights
    weights: WeightsToTest
    header: ScoreHeader
    store: Path
    folder: RunFolder
    uri: str


def _prepare(arguments: EvaluationArguments, progress: Progress) -> _Job:
    """Everything that can be refused before Ray starts."""
    source = find_source(arguments.checkpoint, config=arguments.config, overrides=arguments.overrides)
    config = with_absolute_paths(config_of(source, arguments.config, arguments.overrides))
    videos = read_test_split(config)
    if fault := views_fault(config, videos):
        raise ConfigError([fault])
    uri = ready_store(config.dataset)
    found = find_weights(source, config, progress.line)
    require_finished(source, found)
    progress.line(f"{found.location}: {found.which}; {found.file.description.in_words}")
    tensors, notes = fitted_weights(found, config, videos.class_names)
    for note in notes if found.file.container != "checkpoint" else ():
        progress.line(note)
    run_id = "" if found.run is None else found.run.run_id
    weights = WeightsToTest(tensors=tensors, location=found.location, run_id=run_id, run_name=source.name)
    header = header_of(weights, videos, config=config)
    folder = RunFolder(Path(config.cluster.storage) / EVALUATIONS / f"{source.name}-test-{header.digest[:8]}")
    store = folder.scores if arguments.scores is None else writable_folder(arguments.scores.absolute(), "--scores")
    return _Job(
        config=config, videos=videos, found=found, weights=weights, header=header, store=store, folder=folder, uri=uri
    )


def views_fault(config: ExperimentConfig, videos: Manifest) -> str | None:
    """Why so many clips of a video make no sense; None where they do."""
    clips, table = config.test.num_clips, videos.table
    if config.segmentation is not None or clips == 1:
        return None
    if config.clip.num_frames == 1 and videos.items == "images":
        return f"test.num_clips: {clips} clips of an image are {clips} times the same picture; use 1"
    longest = pc.max(table["num_frames"]).as_py() if "num_frames" in table.column_names else None
    if longest is not None and longest < clips and table["num_frames"].null_count == 0:
        return (
            f"test.num_clips: {clips} clips of videos of at most {longest} frames would be the same ones again; use at "
            f"most {longest}"
        )
    return None


def _carry_out(job: _Job, progress: Progress, marks: StartMarks, *, began: float) -> EvaluationResult:
    folder = job.folder
    folder.root.mkdir(parents=True, exist_ok=True)
    progress = LoggedProgress(progress, folder.log)
    marks.keep_in(folder.start)
    with ScoreStore.create(job.store, job.header) as store:
        atomic_write(folder.experiment, config_to_yaml(job.config))
        known = find_run(job.uri, run_name=folder.root.name, experiment=job.config.dataset)
        if known is not None and known.status == "FINISHED" and len(store.ids()) == len(job.videos):
            progress.line(
                f"{folder.root.name}: all {len(job.videos)} {job.videos.items} are scored and recorded already"
            )
            return _result(job, stored_result(store), run_id=known.run_id, began=began)
        progress.line(
            f"{folder.root.name}: {len(job.videos)} {job.videos.items}, {job.config.test_in_words}; starting Ray"
        )
        # As many workers as there may be: scorers without work aren't started.
        with ray_session(job.config.cluster, job.config.ingest, micro_batches=sys.maxsize) as placement:
            marks.mark(Part.RAY)
            return _score_and_record(job, store, placement, marks, known=known, progress=progress, began=began)


def _score_and_record(
    job: _Job,
    store: ScoreStore,
    placement: Placement,
    marks: StartMarks,
    *,
    known: RunSummary | None,
    progress: Progress,
    began: float,
) -> EvaluationResult:
    config, folder, task = job.config, job.folder, task_of(job.config)
    if placement.on_cluster:
        require_shared_files(config, [{"test": job.videos}], placement)
    require_files({"test": job.videos}, config.ingest)
    marks.mark(Part.CLUSTER)
    before = len(store.ids())
    scoring = begin_test(task, job.weights, job.videos, store=store, config=config, placement=placement)
    record = LateRecord(lambda: _open(job, placement, known=known, progress=progress))
    timed = _FirstScores(progress, record, before=before)
    try:
        with ExitStack() as measured:
            if config.record.system_metrics:
                writer = record.writer()
                measured.enter_context(system_metrics_recorded(config.record, writer, folder, progress))
            tested = finish_test(scoring, config=config, progress=timed)
        writer = record.writer()
        for part, at in tested.start.items():
            marks.mark(part, at=at)
        if tested.start and (said := start_in_words(folder.start)) is not None:
            progress.line(said)
        record_test(tested, job.videos, store=store, task=task, config=config, writer=writer, folder=folder)
        writer.metrics([MetricPoint.now(Metrics.RUN_WALL_S, time.monotonic() - began)])
        result = _result(job, tested, run_id=writer.run_id, began=began, first_scores_s=timed.first_s)
        writer.describe(_note(result, writer.stored()[0]))
        writer.finish("FINISHED")
        progress.line(result.in_words())
    except BaseException as error:
        if (opened := record.at_end(error)) is None:
            raise
        ended: Status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        why = {Tags.ERROR: " ".join(str(error).split()) or type(error).__name__}
        fault = end_early(opened, ended, folder.record_waiting, tags=why)
        if fault is not None and not isinstance(error, TrackingError):
            progress.line(f"{fault}; the same command completes the record")
        raise
    return result


def _note(result: EvaluationResult, tags: Mapping[str, str]) -> str:
    names = (*scores_of(result.task), *further_scores_of(result.task))
    again = f"python pipelines/evaluate.py --checkpoint {shlex.quote(result.checkpoint)} --config experiment.yaml"
    return result_note(result, names, tags, views=result.views, again=again)


def _result(
    job: _Job, tested: TestResult, *, run_id: str, began: float, first_scores_s: float | None = None
) -> EvaluationResult:
    task = task_of(job.config)
    counts = task.count_predictions(tested.predictions)
    return EvaluationResult(
        run_id=run_id,
        run_name=job.folder.root.name,
        evaluates=job.weights.run_id,
        checkpoint=job.weights.location,
        tested=job.found.which,
        weights_sha256=job.header.weights_sha256,
        store=str(job.store),
        task=job.config.task,
        dataset=job.config.dataset,
        views=job.config.test_in_words,
        data_fingerprint=job.header.data_fingerprint,
        experiment_fingerprint=job.header.experiment_fingerprint,
        scores={**counts.scores(), **task.further_scores(tested.predictions)},
        intervals=task.intervals(tested.predictions),
        num_videos=int(counts.num_videos),
        items=job.videos.items,
        num_quarantined=len(tested.broken),
        unscored=tuple(f"{video.video_id} ({video.path}): {video.message}" for video in tested.broken),
        num_scored_now=tested.num_scored_now,
        first_scores_s=first_scores_s,
        start=start_parts(job.folder.start) if tested.start else {},
        wall_s=time.monotonic() - began,
        cpu_s=tested.cpu_s,
    )


class _FirstScores:
    """Passes progress on, notes when it first moved, and has the record opened then."""

    def __init__(self, progress: Progress, record: LateRecord, *, before: int) -> None:
        self._progress, self._record, self._before = progress, record, before
        self._began = time.monotonic()
        self.first_s: float | None = None
        """Seconds from its making to the first scores."""

    def phase(self, title: str, *, total: int, unit: str) -> None:
        """Pass on."""
        self._progress.phase(title, total=total, unit=unit)

    def update(self, done: int, note: str = "") -> None:
        """Pass on."""
        if done > self._before:
            self.first_s = self.first_s or time.monotonic() - self._began
            self._record.ask()
        self._progress.update(done, note)

    def line(self, text: str) -> None:
        """Pass on."""
        self._progress.line(text)


def _open(job: _Job, placement: Placement, *, known: RunSummary | None, progress: Progress) -> RunWriter:
    """The evaluation's own run in the record: the one that the same command began, or a new one; with what it tests."""
    config, name = job.config, job.folder.root.name
    of_the_run = {} if job.found.run is None else job.found.run.tags
    tags = {
        **environment_tags(Path(__file__).parent),
        **source_tags(submitted=was_submitted()),
        **{tag: text for tag, text in of_the_run.items() if tag in _OF_THE_RUN or tag.startswith(Tags.PREPARED)},
        Tags.DATA_TEST: job.header.data_fingerprint,
        **({} if job.videos.prepared is None else {Tags.PREPARED + "test": job.videos.prepared}),
        Tags.BEGUN: datetime.now(UTC).isoformat(timespec="seconds"),
        Tags.EXPERIMENT: config.name,
        Tags.FINGERPRINT: fingerprint(config),
        Tags.DECODER: f"{config.ingest.decoder} {decoder_by_name(config.ingest.decoder).version}",
        Tags.EVALUATES: job.weights.run_id,
        Tags.WEIGHTS: job.header.weights_sha256,
        Tags.TESTED: job.found.which,
        **({Tags.ERROR: ""} if known is not None and Tags.ERROR in known.tags else {}),
        **(ray_job_tag() if placement.on_cluster else {}),
    }
    run_id = open_run(job.uri, experiment=config.dataset, run_name=name, tags=tags, params=record_params(config))
    writer = RunWriter(job.uri, run_id, retry=RetryPolicy(log=progress.line, kept_in=job.folder.root))
    writer.metrics(network_points(config))
    writer.datasets([recorded_dataset(config, "test", job.videos, digest=job.header.data_fingerprint)])
    writer.artifact(job.folder.experiment)
    return writer
