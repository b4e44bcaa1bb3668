"""A run is continued on what it began with; what differs is told before Ray starts and before anything is written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from empty_store import empty_store
from mlflow import MlflowClient

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.errors import CheckpointError, RunInUseError, TrackingError
from morphmlp.experiment.data_splits import SPLIT_TAGS, DataSplits
from morphmlp.experiment.ray_experiment import _open
from morphmlp.experiment.run_claim import require_free, with_absolute_paths
from morphmlp.record import MetricPoint, Metrics
from morphmlp.tracking import RunWriter, find_run
from morphmlp.training.record.run_folder import RunFolder, run_lock

CONFIG = load_config(Path(__file__).parents[1] / "small_experiment.yaml")


class Lines(list[str]):
    def line(self, text: str) -> None:
        self.append(text)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return empty_store(f"sqlite:///{tmp_path_factory.mktemp('record')}/mlflow.db")


@pytest.fixture
def folder(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> RunFolder:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return RunFolder(tmp_path / request.node.name.replace("[", "-").replace("]", ""))


def config_in(folder: RunFolder) -> ExperimentConfig:
    return replace(CONFIG, cluster=replace(CONFIG.cluster, storage=str(folder.root.parent)))


def videos(**names: str) -> DataSplits:
    """One video for each split."""
    return DataSplits(
        **{
            split: manifest_from_rows(
                video_ids=[names.get(split, split)],
                paths=["a.mp4"],
                labels=[0],
                splits=[split],
                sizes_bytes=[1],
                class_names=["a"],
            )
            for split in ("train", "val", "test")
        }
    )


def begin(folder: RunFolder, data: DataSplits, lines: Lines | None = None) -> RunWriter:
    """Open the run as a command does, without its end."""
    folder.root.mkdir(exist_ok=True)
    config = with_absolute_paths(config_in(folder))
    opened = _open(config, data, folder, tags={}, parent_run_id=None, progress=Lines() if lines is None else lines)
    return opened.writer


def written(folder: RunFolder, store: str) -> tuple[dict[str, str], dict[str, bytes]]:
    """The record's tags, and what the folder's files hold."""
    known = find_run(store, run_name=folder.root.name, experiment=CONFIG.dataset)
    assert known is not None
    files = {file.name: file.read_bytes() for file in folder.root.iterdir() if file != folder.lock}
    return dict(known.tags), files


@pytest.mark.parametrize("kept_in", ["folder", "record"])
@pytest.mark.parametrize("split", list(SPLIT_TAGS))
def test_other_videos_are_refused_by_split_and_nothing_is_written(
    split: str, kept_in: str, folder: RunFolder, store: str
):
    begin(folder, videos())
    if kept_in == "record":  # as an older version left it
        folder.data.unlink()
    before = written(folder, store)
    other = videos(**{split: "other"})
    fault = rf"data\.{split} \S+ holds 1:\w+, the run began with 1:\w+\); put the former manifests back"
    with pytest.raises(CheckpointError, match=fault) as caught:
        require_free(config_in(folder), other, folder.root.name)
    assert str(caught.value).count("data.") == 1
    with pytest.raises(CheckpointError, match=fault):
        begin(folder, other)
    assert written(folder, store) == before


def test_the_same_videos_go_on_under_other_paths(folder: RunFolder):
    begin(folder, videos())
    moved = replace(config_in(folder), data=replace(CONFIG.data, train="/elsewhere/train.parquet"))
    require_free(moved, videos(), folder.root.name)


def test_a_new_name_is_free_and_leaves_no_folder(folder: RunFolder):
    require_free(config_in(folder), videos(), folder.root.name)
    assert not folder.root.exists()


def test_a_run_at_work_a_finished_one_and_another_experiment_are_told_before_ray_starts(folder: RunFolder):
    writer = begin(folder, videos())
    with run_lock(folder), pytest.raises(RunInUseError, match="another command works on"):
        require_free(config_in(folder), videos(), folder.root.name)
    other = replace(config_in(folder), optim=replace(CONFIG.optim, lr=0.5))
    with pytest.raises(CheckpointError, match=r"holds another experiment \(optim.lr: "):
        require_free(other, videos(), folder.root.name)
    writer.finish("FINISHED")
    with pytest.raises(CheckpointError, match="that run is finished; choose another name"):
        require_free(config_in(folder), videos(), folder.root.name)


def test_a_plain_folder_as_store_is_told_before_ray_starts(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///records")
    with pytest.raises(TrackingError, match=r"use sqlite:////records/mlflow\.db"):
        require_free(config_in(folder), videos(), folder.root.name)


def test_a_run_whose_record_was_deleted_is_recorded_anew_from_its_folder(folder: RunFolder, store: str):
    first = begin(folder, videos())
    points = [MetricPoint(Metrics.TRAIN_LOSS, 3.0 - step, step, 1_700_000_000_000 + step) for step in (0, 1)]
    first.metrics(points)
    folder.progress.write_text(
        "".join(json.dumps({"points": [[p.key, p.value, p.step, p.timestamp_ms]]}) + "\n" for p in points) + '{"poi',
        encoding="utf-8",
    )
    lines = Lines()
    assert begin(folder, videos(), lines).run_id == first.run_id
    assert lines == []
    MlflowClient(store).delete_run(first.run_id)
    anew = begin(folder, videos(), lines)
    assert anew.run_id != first.run_id
    assert anew.history([Metrics.TRAIN_LOSS]) == points
    assert [line.partition(";")[0] for line in lines] == [f"the record of {folder.root.name} isn't there any more"]


def test_the_folder_of_decoded_clips_means_the_same_to_every_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    named = replace(CONFIG, ingest=replace(CONFIG.ingest, clip_cache="clips"))
    assert with_absolute_paths(named).ingest.clip_cache == str(tmp_path / "clips")
    assert with_absolute_paths(CONFIG).ingest.clip_cache is None
