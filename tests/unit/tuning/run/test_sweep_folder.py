"""A sweep's files: begun once, read back, kept from other commands."""

from dataclasses import replace
from pathlib import Path

import pytest

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import SweepConfig
from morphmlp.errors import CheckpointError, RunInUseError
from morphmlp.tuning.run.sweep_folder import SweepFolder

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
SWEEP = SweepConfig(name="s", experiment=str(SMALL), overrides={}, space={"optim.lr": (0.1,)})


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(root=tmp_path / "runs" / "s-1")


@pytest.mark.parametrize("name", ["s", "1e-3", "2026-11-28", "12:30"])
def test_what_was_begun_is_read_back(name, folder):
    sweep, base = replace(SWEEP, name=name), {**read_yaml(SMALL), "name": name}
    folder.begin(sweep, base)
    assert folder.read() == (sweep, base)


def test_a_second_sweep_of_the_same_name_is_refused(folder):
    folder.require_new()
    folder.begin(SWEEP, {})
    for refused in (folder.require_new, lambda: folder.begin(SWEEP, {})):
        with pytest.raises(CheckpointError, match="choose another name, or continue it with --resume"):
            refused()


def test_a_folder_without_a_sweep_cannot_be_resumed(folder):
    with pytest.raises(CheckpointError, match=r"--resume s-1: .* holds no sweep"):
        folder.read()


def test_two_commands_never_work_on_one_sweep(folder):
    folder.begin(SWEEP, {})
    with folder.lock(), pytest.raises(RunInUseError, match="another command works on"), folder.lock():
        pass
