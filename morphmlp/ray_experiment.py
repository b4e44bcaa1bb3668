"""One experiment from configuration to record: check, train, test, write down.

Pipelines and sweep trials call this; Ray is already running when they do.
"""

import functools
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.loading import changed_fields, config_to_yaml, fingerprint, flat_fields
from morphmlp.data.decoding import decoder_by_name, decoder_fault
from morphmlp.data.manifest import Manifest, read_manifest
from morphmlp.data.quarantine import Quarantine, broken_limit, earlier_broken
from morphmlp.data.ray_dataset import REQUEST_COLUMNS
from morphmlp.errors import CheckpointError, ConfigError, ManifestError
from morphmlp.evaluation.predictions import count_predictions, write_predictions
from morphmlp.evaluation.ray_evaluator import ScorerPool, TestResult, score_views
from morphmlp.evaluation.scoring import confusion_matrix
from morphmlp.metrics import ScoreCounts
from morphmlp.progress import Progress
from morphmlp.ray_cluster import Placement
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.reporting.figures import accuracy_figure, confusion_figure, loss_figure
from morphmlp.tracking import RunWriter, environment_tags, find_run, open_run, prepare_store, tracking_uri
from morphmlp.training.ray_clips import SharedVideos
from morphmlp.training.ray_trainer import train
from morphmlp.training.ray_worker import TrainJob
from morphmlp.training.run_folder import RunFolder, write_whole
from morphmlp.training.state import Checkpoint, build_network, load_checkpoint

CURVES = (
    Metrics.TRAIN_LOSS,
    Metrics.TRAIN_EPOCH_LOSS,
    Metrics.TRAIN_CLIPS_PER_S,
    Metrics.VAL_LOSS,
    Metrics.VAL_TOP1,
    Metrics.VAL_TOP5,
)


@dataclass(frozen=True, kw_only=True)
class DataSplits:
    """The available videos of an experiment, read and checked before anything starts."""

    train: Manifest
    val: Manifest
    test: Manifest

    def tags(self) -> dict[str, str]:
        """Their fingerprints, as they stand in the record."""
        return {
            Tags.DATA_TRAIN: self.train.fingerprint(),
            Tags.DATA_VAL: self.val.fingerprint(),
            Tags.DATA_TEST: self.test.fingerprint(),
            **{Tags.PREPARED + split: made for split, made in self._prepared().items() if made is not None},
        }

    def generations_note(self) -> str | None:
        """One line where some splits are prepared copies and others aren't, or were made in another way."""
        made = self._prepared()
        if len(set(made.values())) == 1:
            return None
        return "splits differ in how their videos were prepared: " + "; ".join(
            f"{split}: {how or 'originals'}" for split, how in made.items()
        )

    def _prepared(self) -> dict[str, str | None]:
        return {"train": self.train.prepared, "val": self.val.prepared, "test": self.test.prepared}


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """What a run found; the JSON of `--json`."""

    run_id: str
    run_name: str
    fingerprint: str
    top1: float
    """Percent of `num_videos`."""
    top5: float
    num_videos: int
    """Test videos scored."""
    num_quarantined: int
    """Test videos that couldn't be scored."""
    unscored: tuple[str, ...]
    """Each of them, with its reason."""
    checkpoint: str
    """Folder of the last checkpoint."""
    wall_s: float
    """From the first check to the last record of this call, seconds."""
    clips_per_s: float
    """Training clips per second, all workers, ingest included: median over the run's reports."""


def read_splits(config: ExperimentConfig) -> DataSplits:
    """Read an experiment's manifests, and check their labels against the head and that they can be decoded here.

    Raises:
        ConfigError: A named decoder can't be used on this machine.
        ManifestError: Every manifest that is missing, empty, or has labels that the model doesn't.
    """
    _require_decoders(config)
    paths = {"train": config.data.train, "val": config.data.val, "test": config.data.test}
    _require_files(paths, config)
    manifests: dict[str, Manifest] = {}
    faults = []
    for split, path in paths.items():
        try:
            manifest = read_manifest(path, only=REQUEST_COLUMNS).available()
        except ManifestError as error:
            faults.append(f"data.{split}: {error}")
            continue
        manifests[split] = manifest
        greatest = pc.max(manifest.table["label"]).as_py()
        if greatest >= config.model.num_classes:
            faults.append(
                f"data.{split}: {path} has label {greatest}, model.num_classes is {config.model.num_classes}; "
                f"set it to {len(manifest.class_names)}"
            )
    if faults:
        raise ManifestError("\n".join(faults))
    return DataSplits(**manifests)


def _require_decoders(config: ExperimentConfig) -> None:
    named = {"ingest.decoder": config.ingest.decoder, "ingest.retry_with": config.ingest.retry_with}
    faults = {field: decoder_fault(name) for field, name in named.items() if name is not None}
    if told := [f"{field}: {fault}" for field, fault in faults.items() if fault is not None]:
        raise ConfigError(told)


def _require_files(paths: Mapping[str, str], config: ExperimentConfig) -> None:
    missing = {split: path for split, path in paths.items() if not Path(path).exists()}
    if not missing:
        return
    fields = ", ".join(f"data.{split} {path}" for split, path in missing.items())
    if config.dataset == "demo":
        folder = Path(config.data.train).parent
        how = f"`python pipelines/prepare.py demo --output {folder}` (a stand-in: `prepare.py standin ssv1|ssv2`)"
    else:
        how = (
            f"`python pipelines/prepare.py {config.dataset} --annotations FILE --videos DIR --output MANIFEST.parquet`"
        )
    raise ManifestError(f"no such manifest: {fields}; write {'it' if len(missing) == 1 else 'each'} with {how}")


def run_experiment(
    config: ExperimentConfig,
    data: DataSplits,
    placement: Placement,
    *,
    run_name: str,
    progress: Progress,
    tags: Mapping[str, str] | None = None,
    parent_run_id: str | None = None,
) -> ExperimentResult:
    """Train, test and record one experiment, or continue it where a run of this name stopped.

    Args:
        config: The experiment.
        data: Its videos.
        placement: Its place on the cluster.
        run_name: Name of the run and of its folder under `cluster.storage`.
        progress: Told what happens.
        tags: More tags for the record.
        parent_run_id: The sweep that the run belongs to.

    Raises:
        MorphMLPError: Whatever the user can mend.
    """
    began = time.monotonic()
    config = with_absolute_paths(config)
    uri = tracking_uri()
    prepare_store(uri)
    folder = claim_folder(config, run_name, uri)
    run_id = open_run(
        uri,
        experiment=config.dataset,
        run_name=run_name,
        tags={**record_tags(config, data), **(tags or {})},
        params=flat_fields(config),
        parent_run_id=parent_run_id,
    )
    writer = RunWriter(uri, run_id)
    try:
        writer.artifact(folder.experiment)
        result = _train_and_test(config, data, placement, writer=writer, folder=folder, progress=progress, began=began)
    except KeyboardInterrupt:
        writer.finish("KILLED")
        raise
    except BaseException:
        writer.finish("FAILED")
        raise
    writer.finish("FINISHED")
    return result


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The same experiment with paths that mean the same to workers, whose working directory may be another."""
    data = {split: str(Path(path).absolute()) for split, path in asdict(config.data).items()}
    return replace(
        config,
        data=replace(config.data, **data),
        cluster=replace(config.cluster, storage=str(Path(config.cluster.storage).absolute())),
    )


def claim_folder(config: ExperimentConfig, run_name: str, uri: str) -> RunFolder:
    """The run's folder; one that exists is continued if it holds the same, unfinished experiment.

    Raises:
        CheckpointError: The name is taken by a finished run or by another experiment; the differences are named.
    """
    folder = RunFolder(Path(config.cluster.storage) / run_name)
    if folder.experiment.exists():
        changes = changed_fields(load_config(folder.experiment), config)
        if changes:
            raise CheckpointError(
                f"--run-name {run_name}: {folder.root} holds another experiment ({'; '.join(changes)}); "
                "undo the changes to continue it, or choose another name"
            )
        known = find_run(uri, run_name=run_name, experiment=config.dataset)
        if known is not None and known.status == "FINISHED":
            raise CheckpointError(f"--run-name {run_name}: that run is finished; choose another name")
    folder.root.mkdir(parents=True, exist_ok=True)
    write_whole(folder.experiment, config_to_yaml(config))
    return folder


def record_tags(config: ExperimentConfig, data: DataSplits) -> dict[str, str]:
    """What the record holds of a run beside its parameters; the workers add what only they know."""
    return {
        **environment_tags(Path(__file__).parent),  # the commit of this code, wherever the command is run
        **data.tags(),
        Tags.EXPERIMENT: config.name,
        Tags.FINGERPRINT: fingerprint(config),
        Tags.DECODER: f"{config.ingest.decoder} {decoder_by_name(config.ingest.decoder).version}",
    }


def _train_and_test(
    config: ExperimentConfig,
    data: DataSplits,
    placement: Placement,
    *,
    writer: RunWriter,
    folder: RunFolder,
    progress: Progress,
    began: float,
) -> ExperimentResult:
    job = TrainJob(
        config=config,
        videos=SharedVideos.of(train=data.train, val=data.val),
        share=placement.ingest_share(config.ingest, pipelines=placement.num_workers),
        num_videos=len(data.train),
        num_val_videos=len(data.val),
        data_fingerprint=data.train.fingerprint(),
        cpus_per_worker=placement.cpus_per_worker,
    )
    if (note := data.generations_note()) is not None:
        progress.line(note)
    checkpoint = train(job, placement, writer, folder, progress)
    history = writer.history(list(CURVES))
    writer.figure(loss_figure(history), "figures/loss.png")
    writer.figure(accuracy_figure(history), "figures/accuracy.png")
    tested = run_test(config, data.test, load_checkpoint(checkpoint), placement, progress)
    counts = record_test(tested, data.test, config, writer=writer, folder=folder)
    wall_s = time.monotonic() - began
    writer.metrics([_point(Metrics.RUN_WALL_S, wall_s)])
    rates = [point.value for point in history if point.key == Metrics.TRAIN_CLIPS_PER_S]
    return ExperimentResult(
        run_id=writer.run_id,
        run_name=folder.root.name,
        fingerprint=fingerprint(config),
        checkpoint=str(checkpoint),
        top1=counts.top1,
        top5=counts.top5,
        num_videos=counts.num_videos,
        num_quarantined=len(tested.broken),
        unscored=tuple(f"{video.video_id} ({video.path}): {video.message}" for video in tested.broken),
        wall_s=wall_s,
        clips_per_s=float(np.median(rates)) if rates else 0.0,
    )


def run_test(
    config: ExperimentConfig, videos: Manifest, checkpoint: Checkpoint, placement: Placement, progress: Progress
) -> TestResult:
    """Score the test videos on all views with a checkpoint's weights."""
    progress.phase(f"test, {config.test.in_words}", total=len(videos), unit="videos")
    return score_views(
        functools.partial(build_network, config),
        checkpoint.model,
        videos,
        clip=config.clip,
        views=config.test,
        pool=ScorerPool(
            num_workers=placement.num_workers,
            cpus_per_worker=placement.cpus_per_worker,
            device=placement.device,
            node_labels=dict(placement.worker_labels),
        ),
        share=placement.ingest_share(config.ingest, pipelines=1),
        videos_at_once=config.train.micro_batch_size,
        progress=progress.update,
    )


def record_test(
    tested: TestResult,
    videos: Manifest,
    config: ExperimentConfig,
    *,
    writer: RunWriter,
    folder: RunFolder,
) -> ScoreCounts:
    """Count the scores, and write them with predictions, confusion matrix and quarantine to the record.

    Raises:
        QuarantineLimitError: Too many test videos are broken for the score to stand for the test set.
    """
    quarantine = Quarantine.read(folder.quarantine)
    quarantine.replace("test", tested.broken)  # files may have been mended since an earlier test
    quarantine.write(folder.quarantine, run=folder.root.name, earlier=earlier_broken(config.data.test))
    writer.artifact(folder.quarantine)
    write_predictions(tested.predictions, folder.predictions)
    writer.artifact(folder.predictions)
    quarantine.check_share(stage="test", num_videos=len(videos), limit=broken_limit(config.ingest))
    counts, num_classes = count_predictions(tested.predictions), config.model.num_classes
    matrix = confusion_matrix(
        tested.predictions["label"].to_numpy(),
        tested.predictions["prediction"].to_numpy(),
        num_classes=num_classes,
    )
    # A head may have more classes than the videos have names for (a few videos under a 400-class head).
    names = [*videos.class_names, *map(str, range(len(videos.class_names), num_classes))]
    writer.figure(confusion_figure(matrix, names), "figures/confusion.png")
    writer.metrics(
        [
            _point(Metrics.TEST_TOP1, counts.top1),
            _point(Metrics.TEST_TOP5, counts.top5),
            _point(Metrics.TEST_NUM_VIDEOS, counts.num_videos),
            _point(Metrics.TEST_NUM_QUARANTINED, len(tested.broken)),
            _point(Metrics.TEST_CONCEALED, tested.concealed),
            _point(Metrics.TEST_RETRIED, tested.retried),
        ]
    )
    return counts


def _point(key: str, value: float) -> MetricPoint:
    return MetricPoint(key, value, 0, int(time.time() * 1000))
