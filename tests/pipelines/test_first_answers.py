"""Help, and the refusal of a field that isn't there, come before anything heavy is imported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORKING = ROOT / "tests" / "fixtures" / "forked_scripts.py"
PIPELINES = sorted(path.name for path in (ROOT / "pipelines").glob("*.py") if "__main__" in path.read_text())
HEAVY = {"torch", "torchvision", "ray", "mlflow", "pandas", "pyarrow", "matplotlib", "optuna", "av"}
DEMO = "experiments/demo/morphmlp_demo.yaml"
TYPO = ["--train.epoch", "3"]
WRONG = {
    "benchmark.py": (["train-step", *TYPO], "train.epoch"),
    "convert_weights.py": (["w.pth", "w.safetensors", *TYPO], "train.epoch"),
    "evaluate.py": (["--checkpoint", "first", *TYPO], "train.epoch"),
    "export.py": (["--checkpoint", "first", "--to", "onnx", "--output", "exported", *TYPO], "train.epoch"),
    "features.py": (["videos", "--checkpoint", "first", "--output", "features", *TYPO], "train.epoch"),
    "predict.py": (["a.mp4", "--checkpoint", "first", *TYPO], "train.epoch"),
    "serve.py": (["--checkpoint", "first", *TYPO], "train.epoch"),
    "drill.py": (["--stops", "ctrl-d"], "ctrl-d"),
    "prepare.py": (["look", "--config", DEMO, "--output", "clips.png", *TYPO], "train.epoch"),
    "preflight.py": (["--config", DEMO, *TYPO], "train.epoch"),
    "train.py": (["--config", DEMO, *TYPO], "train.epoch"),
    "profile_step.py": (["--config", DEMO, *TYPO], "train.epoch"),
    "replay.py": (["run", "7", *TYPO], "train.epoch"),
    "size_cluster.py": (["--config", DEMO, *TYPO], "train.epoch"),
    "export_label_maps.py": (["run", "--output", "maps", *TYPO], "train.epoch"),
}
"""What a user gets wrong, and the word that the answer must have; the others take fields of an experiment."""


@pytest.fixture(scope="module")
def answer():
    """Runs a command in a process of its own, which has click and the schema from the one that it is forked from."""
    with subprocess.Popen(
        [sys.executable, FORKING], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as forking:

        def run(name, *arguments):
            print(json.dumps([f"pipelines/{name}", *arguments]), file=forking.stdin, flush=True)
            done = json.loads(forking.stdout.readline())
            assert "click" in done["packages"], done["said"]
            return done["returncode"], done["said"], HEAVY.intersection(done["packages"])

        yield run


@pytest.mark.parametrize("name", PIPELINES)
def test_help_comes_without_heavy_imports(name, answer):
    returncode, said, heavy = answer(name, "--help")
    assert (returncode, heavy) == (0, set())
    assert "--" in said


@pytest.mark.parametrize("name", PIPELINES)
def test_a_wrong_field_is_refused_without_heavy_imports(name, answer):
    arguments, word = WRONG.get(name, (TYPO, "train.epoch"))
    returncode, said, heavy = answer(name, *arguments)
    assert (returncode, heavy) == (2, set())
    assert word in said


def test_an_installation_that_is_complete_says_what_comes_next(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "install"], cwd=tmp_path, env=outside, capture_output=True, text=True, check=True)
    assert done.stdout == ".venv is ready; next: make demo, make test, or the list of make help\n"
