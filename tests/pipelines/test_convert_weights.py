"""Weights from one form into the other, by the command; unit/models/test_golden_conversion.py has the full size."""

import json
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_mapping
from morphmlp.tasks.factory import task_of
from morphmlp.training.checkpoint.content import FORMAT

SCRIPT = Path(__file__).parents[2] / "pipelines" / "convert_weights.py"
SMALL = Path(__file__).parents[1] / "unit" / "small_experiment.yaml"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the script as `__main__`, but in this process: torch is imported once."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return Done(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def state(tmp_path):
    config = load_config(SMALL)
    torch.manual_seed(0)
    weights = task_of(config).network().state_dict()
    torch.save(weights, tmp_path / "released.pth")
    means = {"head.bias": weights["head.bias"] + 1}
    content = {"format": FORMAT, "config": config_to_mapping(config), "model": weights, "averaged": means}
    torch.save(content, tmp_path / "checkpoint.pt")
    return weights


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_released_weights_go_to_safetensors_and_back(state, command, tmp_path):
    done = command("released.pth", "ours.safetensors", "--json", "out/description.json")
    assert (done.returncode, done.stderr) == (0, "")
    described, chunks, written = done.stdout.splitlines()
    assert described.startswith(
        "released.pth (bare weights): a MorphMLP of depths [1, 1, 2, 1], widths [16, 16, 32, 32]"
    )
    assert chunks == "its chunk lengths aren't in the file, and can't be read from any shape"
    assert written.startswith(f"ours.safetensors: {len(state)} tensors, sha256 ")
    assert equal(load_file(tmp_path / "ours.safetensors"), state)
    result = json.loads((tmp_path / "out" / "description.json").read_text())
    assert (result["container"], result["kind"], result["depths"]) == ("bare", "video", [1, 1, 2, 1])
    assert written.endswith(result["output_sha256"])

    done = command("ours.safetensors", "back.pth", "--container", "pyslowfast")
    assert (done.returncode, done.stderr) == (0, "")
    assert equal(torch.load(tmp_path / "back.pth", weights_only=True)["model_state"], state)


def test_a_checkpoint_gives_its_averaged_weights_or_on_demand_the_others(state, command, tmp_path):
    done = command("checkpoint.pt", "averaged.safetensors")
    assert "(a checkpoint of this project, averaged): " in done.stdout
    assert torch.equal(load_file(tmp_path / "averaged.safetensors")["head.bias"], state["head.bias"] + 1)
    done = command("checkpoint.pt", "last.safetensors", "--no-averaged")
    assert "(a checkpoint of this project): " in done.stdout
    assert equal(load_file(tmp_path / "last.safetensors"), state)


def test_the_rows_of_the_head_can_be_brought_into_another_order(state, command, tmp_path):
    (tmp_path / "rows.txt").write_text("d\t0\nc\t1\nb\t2\na\t3\n")
    (tmp_path / "classes.txt").write_text("A\nB\nC\nD\n")
    options = ("--class-order", "rows.txt", "--classes", "classes.txt")
    done = command("released.pth", "w.safetensors", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert torch.equal(load_file(tmp_path / "w.safetensors")["head.weight"], state["head.weight"].flip(0))
    (tmp_path / "classes.txt").write_text("A\nB\nC\nE\n")
    done = command("released.pth", "other.safetensors", *options)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            "error: --class-order rows.txt: lacks classes of the manifest: 'E'",
            "error: --class-order rows.txt: has classes that the manifest lacks: 'd'",
        ],
    )
    assert not (tmp_path / "other.safetensors").exists()


def test_a_file_that_exists_is_written_over_only_on_demand(state, command, tmp_path):
    (tmp_path / "w.safetensors").write_text("precious")
    done = command("released.pth", "w.safetensors")
    assert (done.returncode, done.stderr) == (2, "error: w.safetensors: exists already; --force writes over it\n")
    assert (tmp_path / "w.safetensors").read_text() == "precious"
    assert command("released.pth", "w.safetensors", "--force").returncode == 0
    assert equal(load_file(tmp_path / "w.safetensors"), state)


def test_faults_are_lines_and_leave_nothing_behind(state, command, tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Virus scan warning</html>")
    before = sorted(tmp_path.iterdir())
    for arguments, fault in (
        (["page.pth", "w.safetensors"], "page.pth: is a web page (HTML), as a download leaves it"),
        (["released.pth", "w.onnx"], "w.onnx: must end in .safetensors or .pth, which says what form to write"),
        (["released.pth", "w.safetensors", "--container", "bare"], "--container bare: is for .pth files"),
        (["released.pth", "w.pth", "--class-order", "rows.txt"], "--class-order and --classes: only together"),
        (["no.pth", "w.pth"], "no.pth: can't be read: No such file or directory"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {fault}")
    assert sorted(tmp_path.iterdir()) == before
