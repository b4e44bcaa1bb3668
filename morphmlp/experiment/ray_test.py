"""The test of an experiment: its score store, the scoring, and what of it goes to the record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import fingerprint
from morphmlp.data.manifest import Manifest
from morphmlp.data.quarantine import Quarantine, broken_limit, earlier_broken
from morphmlp.environment import git_commit
from morphmlp.evaluation.ray_evaluator import ScorerPool, Scoring, TestResult, begin_scoring
from morphmlp.evaluation.score_header import ScoreHeader, weights_sha256
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.files import atomic_file
from morphmlp.progress import Progress
from morphmlp.record import MetricPoint, Metrics
from morphmlp.tasks.task import Counts, Task
from morphmlp.tracking import RunWriter
from morphmlp.training.record.run_folder import RunFolder

VIEWS_IN_RECORD_BYTES = 256 * 2**20
"""Size of a store up to which `predictions.parquet`, which goes to MLflow, holds the logits of every view."""


@dataclass(frozen=True, kw_only=True)
class WeightsToTest:
    """The weights of a test, and where they come from."""

    tensors: Mapping[str, Tensor]
    """As the task's network takes them."""
    location: str
    """Checkpoint or file, for people."""
    run_id: str
    """MLflow's, of the run that trained them; empty where none is known."""
    run_name: str
    """That run's name, or that of the file."""


def header_of(weights: WeightsToTest, videos: Manifest, *, config: ExperimentConfig) -> ScoreHeader:
    """What the scores of a test are of."""
    views = config.test if config.segmentation is None else None
    return ScoreHeader(
        task=config.task,
        dataset=config.dataset,
        items=videos.items,
        class_names=videos.class_names,
        num_classes=config.model.num_classes,
        manifest=str(Path(config.data.test).absolute()),
        num_videos=len(videos),
        data_fingerprint=videos.fingerprint(),
        experiment=config.name,
        experiment_fingerprint=fingerprint(config),
        run_id=weights.run_id,
        run_name=weights.run_name,
        checkpoint=weights.location,
        weights_sha256=weights_sha256(weights.tensors),
        num_clips=1 if views is None else views.num_clips,
        num_crops=1 if views is None else views.num_crops,
        views=config.test_in_words,
        git_commit=git_commit(Path(__file__).parent),
    )


def begin_test(
    task: Task,
    weights: WeightsToTest,
    videos: Manifest,
    *,
    store: ScoreStore,
    config: ExperimentConfig,
    placement: Placement,
) -> Scoring:
    """Begin to score the test videos that the store lacks: its processes take seconds to start."""
    return begin_scoring(
        task,
        weights.tensors,
        videos,
        store=store,
        pool=ScorerPool(
            num_workers=placement.num_workers,
            cpus_per_worker=placement.cpus_per_worker,
            device=placement.device,
            node_labels=dict(placement.worker_labels),
        ),
        share=placement.ingest_share(config.ingest, pipelines=1),
        videos_at_once=config.train.micro_batch_size,
        broken_limit=broken_limit(config.ingest),
    )


def finish_test(scoring: Scoring, *, config: ExperimentConfig, progress: Progress) -> TestResult:
    """Wait for all scores of a test that was begun."""
    store, videos = scoring.store, scoring.manifest
    if there := len(store.ids()):
        progress.line(f"test: {there} of {len(videos)} {videos.items} are scored already ({store.root})")
    progress.phase(f"test, {config.test_in_words}", total=len(videos), unit=videos.items)
    return scoring.collect(progress.update)


def record_test(
    tested: TestResult,
    videos: Manifest,
    *,
    store: ScoreStore,
    task: Task,
    config: ExperimentConfig,
    writer: RunWriter,
    folder: RunFolder,
) -> tuple[Counts, Mapping[str, tuple[float, float]]]:
    """Count the scores, and write them with predictions, confusion matrix and quarantine to the record.

    Returns the counts and the task's intervals.

    Raises:
        QuarantineLimitError: Too many test videos are broken for the score to stand for the test set.
    """
    quarantine = Quarantine.read(folder.quarantine)
    quarantine.replace("test", tested.broken)  # files may have been fixed since an earlier test
    quarantine.write(folder.quarantine, run=folder.root.name, earlier=earlier_broken(config.data.test))
    writer.artifact(folder.quarantine)
    write_predictions(store, folder.predictions)
    writer.artifact(folder.predictions)
    quarantine.check_share(stage="test", num_videos=len(videos), limit=broken_limit(config.ingest))
    counts, intervals = task.count_predictions(tested.predictions), task.intervals(tested.predictions)
    _record_confusion(tested, videos, task=task, config=config, writer=writer)
    scores = {**counts.scores(), **task.further_scores(tested.predictions)}
    writer.metrics(
        [
            *(MetricPoint.now(f"test/{key}", value) for key, value in scores.items()),
            *(
                MetricPoint.now(f"test/{key}_{end}", value)
                for key, ends in intervals.items()
                for end, value in zip(("low", "high"), ends, strict=True)
            ),
            MetricPoint.now(Metrics.TEST_NUM_VIDEOS, int(counts.num_videos)),
            MetricPoint.now(Metrics.TEST_NUM_QUARANTINED, len(tested.broken)),
            MetricPoint.now(Metrics.TEST_CONCEALED, tested.concealed),
            MetricPoint.now(Metrics.TEST_RETRIED, tested.retried),
        ]
    )
    return counts, intervals


def _record_confusion(
    tested: TestResult, videos: Manifest, *, task: Task, config: ExperimentConfig, writer: RunWriter
) -> None:
    """Draw which classes were taken for which; of segmentation images with their label maps too."""
    matrix = task.confusion(tested.predictions)
    if matrix is None:
        return
    # A head may have more classes than the videos have names for (a few videos under a 400-class head).
    names = [*videos.class_names, *map(str, range(len(videos.class_names), len(matrix)))]
    if config.segmentation is None:
        from morphmlp.reporting.figures import confusion_figure  # noqa: PLC0415 (matplotlib: once scores are there)

        confusion = confusion_figure(matrix, names)
        writer.figure(confusion, "figures/confusion.png")
        writer.thumbnail(confusion, "confusion")
    else:
        from morphmlp.experiment.ray_segmentation_record import record_segmentation  # noqa: PLC0415 (as above)

        record_segmentation(
            tested.predictions,
            videos,
            class_names=names,
            ingest=config.ingest,
            panels=config.segmentation.test.panels,
            writer=writer,
        )


def write_predictions(store: ScoreStore, path: Path) -> None:
    """Write a store's scores as one file in the order of the manifest, some at a time.

    Where they are many, the logits of each view are empty lists: the store has them.
    """
    is_small = store.size_bytes() <= VIEWS_IN_RECORD_BYTES
    schema = pa.schema([store.schema.field(name) for name in store.columns])
    with atomic_file(path) as unfinished, pq.ParquetWriter(unfinished, schema) as file:
        for table in store.in_order(store.columns) if is_small else store.in_order_without_views():
            file.write_table(table)
