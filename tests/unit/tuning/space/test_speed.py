"""What a plan's hours are reckoned from."""

from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.environment import hardware
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tracking import RunWriter, open_run, prepare_store
from morphmlp.tuning.space.speed import known_speed, num_train_videos

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"


@pytest.fixture
def store(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def add_run(uri, name, *, speed, where=None, status="FINISHED"):
    prepare_store(uri)
    tags = {Tags.HARDWARE: where or hardware()}
    writer = RunWriter(uri, open_run(uri, experiment="demo", run_name=name, tags=tags, params={}))
    writer.metrics([MetricPoint(Metrics.RUN_GMACS_PER_S, speed, 0, 1)])
    writer.finish(status)


def test_without_a_store_or_a_run_of_the_data_set_nothing_is_known(store):
    assert known_speed("demo") is None
    add_run(store, "demo-run", speed=2.0)
    assert known_speed("k400") is None


def test_the_newest_finished_run_on_this_hardware_tells_the_speed(store):
    add_run(store, "older", speed=1.0)
    add_run(store, "newest", speed=2.0)
    add_run(store, "elsewhere", speed=30.0, where="a big machine")
    add_run(store, "broken", speed=40.0, status="FAILED")
    found = known_speed("demo")
    assert (found.gmacs_per_s, found.source) == (2.0, "run newest")


def test_training_videos_are_counted_where_the_manifest_is_there(tmp_path):
    write_demo_dataset(tmp_path, train=16, val=8, test=8)
    here = {f"data.{split}": str(tmp_path / f"{split}.parquet") for split in ("train", "val", "test")}
    assert num_train_videos(load_config(SMALL, here)) == 16
    assert num_train_videos(load_config(SMALL, {"data.train": str(tmp_path / "nowhere.parquet")})) is None
