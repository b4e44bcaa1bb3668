import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from empty_store import empty_store
from run_here import run_here

from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tasks.scores import TOP1
from morphmlp.tracking import RunWriter, open_run

SCRIPT = Path(__file__).parents[2] / "pipelines" / "tables.py"


def environment(uri=None):
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | (
        {} if uri is None else {"MLFLOW_TRACKING_URI": uri}
    )


def command(folder, *arguments, uri=None):
    return run_here(SCRIPT, *arguments, cwd=folder, environment=environment(uri))


def test_without_any_run_all_published_rows_are_printed_and_nothing_is_created(tmp_path):
    afresh = [sys.executable, str(SCRIPT)]
    done = subprocess.run(
        afresh, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n| MorphMLP-") == 12 + 4 + 3 + 2  # videos, images, segmentation, claims
    for gmac_a_view, rows in (("66.4", 5), ("133.3", 2), ("97.8", 3), ("196.7", 3), ("12.5", 2)):
        assert done.stdout.count(f" {gmac_a_view} |") == rows
    titles = ("Kinetics-400", "Something-Something V1", "Something-Something V2", "ImageNet-1K", "ADE20K")
    for title in (*titles, "ADE20K: other networks", "What the paper claims"):
        assert f"## {title}\n" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_finished_demo_run_appears_in_its_table(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    empty_store(uri)
    tags = {Tags.FINGERPRINT: "0123456789ab", Tags.EXPERIMENT: "demo-s", Tags.DATA_TRAIN: "2001:0123"}
    length = {"task": "classification", "train.seed": 0, "train.epochs": 4, "train.global_batch_size": 16}
    writer = RunWriter(uri, open_run(uri, experiment="demo", run_name="demo-s", tags=tags, params=length))
    writer.metrics([MetricPoint(TOP1.test_metric, 93.75, 0, 1), MetricPoint(Metrics.TEST_NUM_VIDEOS, 80, 0, 1)])
    writer.metrics([MetricPoint(TOP1.val_metric, value, epoch, 1) for epoch, value in enumerate((40, 97, 90, 98), 1)])
    writer.finish("FINISHED")
    done = command(tmp_path, "--dataset", "demo", "--format", "csv", "--output", "tables/demo.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    header, row = (tmp_path / "tables" / "demo.csv").read_text().splitlines()
    assert header.startswith("experiment,temporal,")
    assert row.startswith("demo-s,,,,? clips x ? crops,,93.8,86.2 to 97.3,,,80,,,,0123456789ab,,20")
    done = command(tmp_path, "--html", "tables/all.html")
    assert (done.returncode, done.stdout, done.stderr) == (0, "written: tables/all.html\n", "")
    assert '<tr id="demo-measured-0"' in (tmp_path / "tables" / "all.html").read_text(encoding="utf-8")
    done = command(tmp_path, "--dataset", "demo", "--steps-to", "97", "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["experiment,start,seed,steps,epochs,of,run", "demo-s,fresh,0,250,2,4,demo-s"]


def test_a_store_that_does_not_answer_is_one_clear_line(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        done = command(tmp_path, uri=f"http://127.0.0.1:{server.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: tracking store http://127.0.0.1:")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "csv"],
        ["--dataset", "places365"],
        ["--steps-to", "97"],
        ["--update", "nowhere.md"],
        ["--html", "a.html", "--output", "b.md"],
        ["--measured", "--claims"],
        ["--claims", "--dataset", "k400"],
    ],
)
def test_arguments_that_do_not_fit_exit_with_2(tmp_path, arguments):
    done = command(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert arguments[0] in done.stderr


@pytest.mark.parametrize("option", ["--output", "--html"])
def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path, option):
    (tmp_path / "file").write_text("")
    done = command(tmp_path, "--dataset", "ssv1", option, "file/tables")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {option} file/tables: can't be written: File exists\n"
