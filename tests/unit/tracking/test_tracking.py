import math
import pickle
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from empty_store import empty_store
from matplotlib.figure import Figure
from mlflow import MlflowClient

from morphmlp.environment import COMMIT_VARIABLE, blob_reader, environment_tags, git_tree, package_blobs
from morphmlp.errors import StoreAwayError, TrackingError
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tasks.scores import TOP1
from morphmlp.tracking import RunWriter, find_run, open_run, prepare_store, read_runs, ready_store, tracking_uri
from morphmlp.training.workers.ray_trainer import record_stop

FINGERPRINT = {Tags.FINGERPRINT: "0123456789ab", Tags.EXPERIMENT: "demo-s"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the module, in a folder with a space; every test has its own run name or experiment."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('a store') / 'mlruns' / 'mlflow.db'}"
    empty_store(uri)
    return uri


def opened(uri, run_name, **changes):
    arguments = {"experiment": "demo", "tags": FINGERPRINT, "params": {"model.depths": [1, 1, 2, 1]}} | changes
    return open_run(uri, run_name=run_name, **arguments)


def points(key, steps, value=1.0):
    return [MetricPoint(key, value, step, 1_700_000_000_000 + step) for step in steps]


def test_the_default_store_is_an_absolute_sqlite_file_under_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert tracking_uri() == "http://tracking:5000"


@pytest.mark.parametrize("folder", ["file:///records", "file:/records", "/records", "./records", "mlruns"])
def test_a_plain_folder_is_refused_with_the_database_that_would_do(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", folder)
    with pytest.raises(TrackingError, match=f"^MLFLOW_TRACKING_URI {folder}: .* use sqlite:///.*/mlflow.db, or unset"):
        tracking_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow's own way to insist
    assert tracking_uri() == folder


@pytest.mark.parametrize("uri", ["sqlite:////records/mlflow.db", "databricks", "databricks://profile", "http://h:5000"])
def test_other_stores_are_left_to_mlflow(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri() == uri


def test_two_commands_that_start_at_once_prepare_one_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    script = (
        "import sys; from morphmlp.tracking import *; prepare_store(sys.argv[1]); "
        "open_run(sys.argv[1], experiment='demo', run_name=sys.argv[2], tags={}, params={})"
    )
    commands = [
        subprocess.Popen([sys.executable, "-c", script, uri, name], stderr=subprocess.PIPE, text=True)
        for name in ("first", "second")
    ]
    outcomes = [(command.communicate(timeout=60)[1], command.returncode) for command in commands]
    assert outcomes == [("", 0), ("", 0)]
    assert find_run(uri, run_name="first").experiment == find_run(uri, run_name="second").experiment == "demo"


def test_a_store_can_be_prepared_again(store):
    run_id = opened(store, "kept")
    prepare_store(store)
    assert find_run(store, run_name="kept").run_id == run_id


def test_a_new_run_carries_name_tags_and_params(store):
    run_id = opened(store, "new", params={"a.list": [1, 2], "a.text": "mixed", "a.none": None, "a.flag": True})
    run = find_run(store, run_name="new", experiment="demo")
    assert (run.run_id, run.status) == (run_id, "RUNNING")
    assert run.tags[Tags.FINGERPRINT] == "0123456789ab"
    assert run.params == {"a.list": "[1, 2]", "a.text": "mixed", "a.none": "null", "a.flag": "true"}


def test_more_params_and_tags_than_mlflow_takes_at_once_are_all_logged(store):
    params = {f"p.{i}": i for i in range(250)}
    tags = FINGERPRINT | {f"t.{i}": str(i) for i in range(150)}
    opened(store, "many", params=params, tags=tags)
    run = find_run(store, run_name="many")
    assert len(run.params) == 250
    assert tags.items() <= run.tags.items()


def test_a_param_too_long_for_mlflow_is_cut_and_kept_whole_as_an_artifact(store):
    long = {"data.files": ["video.mp4"] * 1000}
    opened(store, "long", params=long)
    text = find_run(store, run_name="long").params["data.files"]
    assert len(text) == 6000
    assert text.endswith("(complete: artifact params/data.files.json)")
    [whole] = artifacts(store).rglob("data.files.json")
    assert whole.read_text().count("video.mp4") == 1000
    assert opened(store, "long", params=long) == find_run(store, run_name="long").run_id
    assert not any(tag.startswith(Tags.RESUMED_WITH) for tag in find_run(store, run_name="long").tags)


def artifacts(uri):
    return Path(uri.removeprefix("sqlite:///")).parent / "artifacts"


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_an_unfinished_run_is_resumed(store, status):
    name = f"unfinished-{status}"
    first = opened(store, name)
    if status != "RUNNING":
        RunWriter(store, first).finish(status)
    assert opened(store, name) == first
    assert find_run(store, run_name=name).status == "RUNNING"


def test_a_finished_run_and_a_run_of_another_fingerprint_are_not_resumed(store):
    first = opened(store, "finished")
    other = opened(store, "finished", tags={Tags.FINGERPRINT: "ffffffffffff"})
    RunWriter(store, first).finish("FINISHED")
    again = opened(store, "finished")
    assert len({first, other, again}) == 3


def test_without_a_fingerprint_every_call_opens_a_run(store):
    assert opened(store, "plain", tags={}) != opened(store, "plain", tags={})


def test_a_resumed_run_keeps_its_params_and_notes_what_changed(store):
    opened(store, "changed", params={"cluster.num_workers": 1, "optim.lr": 0.1})
    opened(
        store, "changed", params={"cluster.num_workers": 2, "optim.lr": 0.1, "new": 3}, tags=FINGERPRINT | {"t": "2"}
    )
    run = find_run(store, run_name="changed")
    assert run.params == {"cluster.num_workers": "1", "optim.lr": "0.1", "new": "3"}
    assert run.tags["t"] == "2"
    noted = {name: value for name, value in run.tags.items() if name.startswith(Tags.RESUMED_WITH)}
    assert noted == {"morphmlp.resumed_with.cluster.num_workers": "2"}


def test_children_of_two_parents_may_share_a_name(store):
    parents = [opened(store, name) for name in ("parent-a", "parent-b")]
    children = [opened(store, "trial", parent_run_id=parent) for parent in parents]
    assert len(set(children)) == 2
    assert opened(store, "trial", parent_run_id=parents[0]) == children[0]
    assert find_run(store, run_name="trial").tags["mlflow.parentRunId"] in parents


def test_a_run_that_does_not_exist_is_none(store):
    assert find_run(store, run_name="nobody's") is None
    assert find_run(store, run_name="new", experiment="no such data set") is None


def test_points_arrive_with_step_and_time_in_chunks(store):
    writer = RunWriter(store, opened(store, "chunks"))
    sent = points("train/loss", range(2500))
    writer.metrics(sent)
    assert writer.history(["train/loss", "val/top1"]) == sent


def test_a_resume_from_an_earlier_step_doubles_no_point(store):
    run_id = opened(store, "resumed")
    RunWriter(store, run_id).metrics(points(Metrics.TRAIN_LOSS, range(10)) + points(TOP1.val_metric, [0]))
    resumed = RunWriter(store, run_id)
    resumed.metrics(points(Metrics.TRAIN_LOSS, range(5, 12), value=2.0) + points(TOP1.val_metric, [0, 1]))
    resumed.metrics(points(Metrics.TRAIN_LOSS, range(10, 14), value=3.0))
    loss = resumed.history([Metrics.TRAIN_LOSS])
    assert [point.step for point in loss] == list(range(14))
    assert [point.value for point in loss] == [1.0] * 10 + [2.0] * 2 + [3.0] * 2
    assert [point.step for point in resumed.history([TOP1.val_metric])] == [0, 1]


def test_a_step_given_twice_in_one_call_is_stored_once(store):
    writer = RunWriter(store, opened(store, "twice"))
    writer.metrics(points("train/loss", [3]) + points("train/loss", [3], value=5.0))
    assert [(point.step, point.value) for point in writer.history(["train/loss"])] == [(3, 5.0)]


def test_nan_and_infinity_are_recorded(store):
    writer = RunWriter(store, opened(store, "odd"))
    values = [math.nan, math.inf, -math.inf]
    writer.metrics([MetricPoint("train/loss", value, step, 1) for step, value in enumerate(values)])
    nan, most, least = (point.value for point in writer.history(["train/loss"]))
    assert math.isnan(nan)
    assert -least == most == sys.float_info.max


def test_a_writer_travels_as_two_strings(store):
    writer = RunWriter(store, opened(store, "travels"))
    writer.metrics(points("train/loss", [0]))
    arrived = pickle.loads(pickle.dumps(writer))
    assert vars(arrived) == vars(RunWriter(store, writer.run_id))
    arrived.metrics(points("train/loss", [0, 1]))
    assert len(arrived.history(["train/loss"])) == 2


def test_artifacts_lie_beside_the_database(store, tmp_path):
    writer = RunWriter(store, opened(store, "artifacts"))
    (tmp_path / "quarantine.parquet").write_bytes(b"rows")
    writer.artifact(tmp_path / "quarantine.parquet", folder="test")
    writer.artifact(tmp_path)
    writer.text("name: demo", "config.yaml")
    figure = Figure()
    figure.add_subplot().plot([0, 1])
    writer.figure(figure, "figures/loss.png")
    folder = artifacts(store) / writer.run_id / "artifacts"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"quarantine.parquet", "test/quarantine.parquet", "config.yaml", "figures/loss.png"}


def test_a_run_ends_with_its_status(store):
    writer = RunWriter(store, opened(store, "ends"))
    writer.finish("KILLED")
    assert find_run(store, run_name="ends").status == "KILLED"


def test_finished_runs_read_as_a_table_newest_first(store):
    for name, experiment, status in (("a", "one", "FINISHED"), ("b", "two", "FINISHED"), ("c", "one", "FAILED")):
        tags = FINGERPRINT | {Tags.EXPERIMENT: experiment}
        writer = RunWriter(store, opened(store, name, experiment="k400", tags=tags, params={"train.max_steps": None}))
        writer.metrics(points(TOP1.test_metric, [0], value=10.0) + points(TOP1.test_metric, [1], value=12.5))
        writer.finish(status)
        time.sleep(0.005)
    table = read_runs(store, dataset="k400")
    assert table["run_name"].tolist() == ["b", "a"]
    assert table["metrics.test/top1"].tolist() == [12.5, 12.5]
    assert table["params.train.max_steps"].tolist() == ["null", "null"]
    assert str(table["start_time"].dtype).endswith("UTC]")
    assert read_runs(store, experiment="one")["run_name"].tolist() == ["a"]
    assert read_runs(store, dataset="ssv1").empty


def test_reading_a_store_that_does_not_exist_yet_creates_nothing(tmp_path):
    table = read_runs(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert table.empty
    assert list(table.columns) == ["run_id", "run_name", "dataset", "start_time"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("answers", ["refuses", "hangs"])
def test_a_dead_server_is_given_up_within_seconds(answers):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers == "hangs":
            server.listen()
        uri = f"http://someone:secret@127.0.0.1:{server.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(TrackingError, match=r"tracking store http://127.0.0.1:\d+: no answer") as caught:
            prepare_store(uri)
    assert time.monotonic() - begin < 12
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "fault"),
    [("nonsense://x", "unsupported URI"), ("mlruns", "maintenance mode"), ("sqlite:///{file}", "not a database")],
)
def test_a_store_that_can_not_be_used_is_named_in_one_line(tmp_path, uri, fault):
    file = tmp_path / "notes.txt"
    file.write_text("these are notes, and no database at all " * 100)
    with pytest.raises(TrackingError, match=fault) as caught:
        prepare_store(uri.format(file=file))
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_that_is_gone_is_a_tracking_error(store):
    with pytest.raises(TrackingError, match="0badf00d"):
        RunWriter(store, "0badf00d").metrics(points("train/loss", [0]))


def test_a_deleted_run_is_one_line_with_the_way_back_and_takes_points_again_then(store):
    run_id = opened(store, "deleted")
    writer = RunWriter(store, run_id)
    MlflowClient(store).delete_run(run_id)
    for write in (lambda: writer.metrics(points("train/loss", [0])), lambda: writer.finish("FINISHED")):
        with pytest.raises(TrackingError, match=f"the run {run_id} was deleted there; bring it back by") as caught:
            write()
        assert not isinstance(caught.value, StoreAwayError)  # waiting doesn't help
        assert "\n" not in str(caught.value)
    assert f"mlflow runs restore --run-id {run_id}`, or repeat the same command" in str(caught.value)
    MlflowClient(store).restore_run(run_id)
    writer.metrics(points("train/loss", [0]))


def test_a_deleted_experiment_is_one_line_with_the_way_back_before_anything_is_recorded(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert ready_store("demo") == uri
    client = MlflowClient(uri)
    assert client.get_experiment_by_name("demo") is None
    experiment = client.create_experiment("demo")
    assert ready_store("demo") == uri
    client.delete_experiment(experiment)
    way_back = f"the experiment {experiment} was deleted there; .* mlflow experiments"
    for use in (lambda: ready_store("demo"), lambda: opened(uri, "run")):
        with pytest.raises(TrackingError, match=way_back):
            use()
    client.restore_experiment(experiment)
    opened(uri, "run")


def test_the_store_is_plain_sqlite_that_others_can_open(store):
    opened(store, "plain-sqlite")
    connection = sqlite3.connect(store.removeprefix("sqlite:///"))
    try:
        [(count,)] = connection.execute("select count(*) from runs where name = 'plain-sqlite'")
    finally:
        connection.close()
    assert count == 1


def test_a_stop_is_recorded_before_the_workers_have_saved(store):
    writer = RunWriter(store, opened(store, "stopped"))
    record_stop(writer).join(60)
    assert find_run(store, run_name="stopped", experiment="demo").status == "KILLED"
    record_stop(RunWriter(store, "no-such-run")).join(60)  # nobody's thread fails


def test_the_environment_names_commit_versions_and_hardware(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (tmp_path / "a.txt").write_text("a")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "a"], check=True)
    clean = environment_tags(tmp_path)
    assert len(clean[Tags.GIT_COMMIT]) == 40
    assert clean[Tags.GIT_DIRTY] == "false"
    assert clean[Tags.VERSION + "mlflow"].startswith("3.")
    assert clean[Tags.VERSION + "python"] == ".".join(map(str, sys.version_info[:3]))
    assert " cores, " in clean[Tags.HARDWARE]
    assert clean[Tags.HARDWARE].endswith(" GiB")
    assert socket.gethostname() not in " ".join(clean.values())
    (tmp_path / "a.txt").write_text("b")
    assert environment_tags(tmp_path)[Tags.GIT_DIRTY] == "true"


def test_code_that_was_copied_without_its_repository_has_the_commit_that_the_user_names(tmp_path, monkeypatch):
    monkeypatch.setenv(COMMIT_VARIABLE, "41f6020")
    tags = environment_tags(tmp_path)
    assert (tags[Tags.GIT_COMMIT], tags[Tags.GIT_DIRTY]) == ("41f6020", "unknown")
    assert tags[Tags.CODE] == git_tree(package_blobs())


def test_code_has_the_name_that_git_gives_it(tmp_path, monkeypatch):
    names = ["__init__.py", "b.py", "b/__init__.py", "b/c.txt", "b-c/d.py", "b0.py", "empty.py"]
    for name in names:  # git sorts b-c, b.py, b/, b0.py
        (tmp_path / "shipped" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shipped" / name).write_text("" if name == "empty.py" else name)
    (tmp_path / "shipped" / "__pycache__").mkdir()
    (tmp_path / "shipped" / "__pycache__" / "b.pyc").touch()
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", *(f"shipped/{name}" for name in names)], check=True)
    tree = subprocess.run([*git, "write-tree"], check=True, capture_output=True, text=True).stdout.strip()
    known = subprocess.run([*git, "rev-parse", f"{tree}:shipped"], check=True, capture_output=True, text=True).stdout
    monkeypatch.syspath_prepend(str(tmp_path))
    assert git_tree(blob_reader()("shipped")) == known.strip()
    assert blob_reader()("not_shipped") == {}


def test_outside_a_repository_the_commit_is_unknown(tmp_path):
    tags = environment_tags(tmp_path)
    assert (tags[Tags.GIT_COMMIT], tags[Tags.GIT_DIRTY]) == ("unknown", "unknown")
