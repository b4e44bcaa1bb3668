"""The command: a table, its JSON, and node counts in a cluster file."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NODES = """currency: EUR
train: {cpus: 48, gpus: 4, memory_gib: 192, network_gbit: 40, hour_price: 6}
ingest: {cpus: 16, memory_gib: 64, network_gbit: 25, hour_price: 1}
"""


CHECK = ["--check", "docs"]
K400 = "experiments/k400/morphmlp_s_16x4.yaml"


@pytest.fixture
def size(monkeypatch, capsys):
    """Run the command: its exit code, and what it prints. In this process, where torch and Ray are imported already."""

    def in_this_process(*arguments):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["size_cluster.py", *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_path("pipelines/size_cluster.py", run_name="__main__")
        return left.value.code, *capsys.readouterr()

    return in_this_process


def test_a_cluster_is_sized_and_written(size, tmp_path):
    prices, cluster, result = tmp_path / "nodes.yaml", tmp_path / "cluster.yaml", tmp_path / "size.json"
    prices.write_text(NODES)
    shutil.copy(ROOT / "cluster.yaml", cluster)
    code, out, err = size(
        *("--config", K400, "--gpus", "16", "--train.global-batch-size", "128", "--videos", "240000"),
        *("--val-videos", "20000", "--step-s", "0.1337", "--decode-ms", "30", "--prices", str(prices)),
        *("--write", str(cluster), "--json", str(result)),
    )
    assert code == 0, err
    found, written = json.loads(result.read_text()), yaml.load(cluster.read_text(), Loader=yaml.BaseLoader)
    assert found["times"]["workers"] == 16
    assert found["inputs"]["decode_measured_by"] == "--decode-ms"
    for role, count in (("train", found["train_nodes"]), ("ingest", found["ingest_nodes"])):
        assert written["available_node_types"][role]["min_workers"] == str(count)
    assert "16 of 16: a step has 16 micro-batches of 8 videos" in out


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        (["--gpus", "16"], ["--config FILE: is missing"]),
        (
            ["--config", K400, "--write", "cluster.yaml", "--scale", "--figure", "plot.txt"],
            ["--write: needs --prices", "--scale: needs --prices", "--figure plot.txt: isn't .png or .svg"],
        ),
        (
            [*CHECK, "--measured", "docs/no.json"],
            ["--measured docs/no.json: isn't a result of `benchmark.py shared-cores"],
        ),
        (CHECK, ["--check FOLDER: needs --measured FILE"]),
        (["--by", "docs"], ["--by FOLDER: names by whose costs"]),
        (
            [*CHECK, "--measured", "a.json", "--measured", "b.json"],
            ["--measured a.json, b.json: --check needs one result of `benchmark.py shared-cores"],
        ),
        ([*CHECK, "--measured", "x.json", "--config", K400], ["--check docs: the run has its own experiment"]),
        ([*CHECK, "--measured", "x.json", "--train.epochs", "3"], ["--check docs: the run has its own experiment"]),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line_each(size, arguments, faults):
    code, _, err = size(*arguments)
    assert code == 2
    for line, fault in zip(err.splitlines(), faults, strict=True):
        assert line.startswith(f"error: {fault}")


INGEST = {
    "clip_costs": {"cpu_ms": {"product": 30.0, "prepared": 12.0, "webm": 36.0, "frame_folder": 15.0, "packed": 14.0}},
    "ingest": {"ray_cpu_ms": 32.0},
}


def test_a_decode_budget_is_cores_by_stored_form_and_rate(size, tmp_path):
    measured, result = tmp_path / "ingest.json", tmp_path / "budget.json"
    measured.write_text(json.dumps(INGEST))
    code, out, err = size(
        *("--decode-budget", "95", "--decode-budget", "190", "--measured", str(measured), "--json", str(result))
    )
    assert code == 0, err
    budgets = {one["form"]: one for one in json.loads(result.read_text())["budgets"]}
    assert budgets["mp4"]["core_ms"] == pytest.approx(32)
    assert budgets["mp4"]["cores"] == pytest.approx([3.2, 6.4])  # 95 clips/s x 32 ms / 95 %
    assert budgets["mp4, prepared"]["cores"] == pytest.approx([1.4, 2.8])
    assert [cell.strip() for cell in out.splitlines()[2].split("|")[1:-1]] == ["mp4", "32.0", "3.2", "6.4"]


@pytest.mark.parametrize("content", [None, "{}", "no JSON", '{"clip_costs": 3, "ingest": 4}'])
def test_a_decode_budget_needs_a_measured_ingest(size, tmp_path, content):
    measured = tmp_path / "ingest.json"
    if content is not None:
        measured.write_text(content)
    code, _, err = size("--decode-budget", "120", "--measured", str(measured))
    assert code == 2
    assert str(measured) in err
