"""`pipelines/prepare.py look` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from run_here import run_here

from morphmlp.data.synthetic.scenes import write_ade20k_standin

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "experiments" / "demo" / "morphmlp_demo.yaml"
SCRIPT = ROOT / "pipelines" / "prepare.py"


def prepare(*arguments):
    return run_here(SCRIPT, *arguments, cwd=ROOT)


def prepare_afresh(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = prepare("demo", "--output", folder, "--train", 16, "--val", 16, "--test", 16)
    assert done.returncode == 0, done.stderr
    return folder


def look(demo, output, *arguments, by=prepare):
    return by(
        "look",
        *("--config", CONFIG, "--output", output, "--videos", 2),
        *("--data.train", demo / "train.parquet", "--data.val", demo / "val.parquet"),
        *arguments,
    )


def test_a_contact_sheet_of_the_training_clips_is_drawn_with_overrides(demo, tmp_path):
    output = tmp_path / "new" / "sheet.png"
    done = look(demo, output, "--epoch", 1, "--augment.repeats", 3, "--augment.erase", 1.0, by=prepare_afresh)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{output}: 6 clips\n"
    assert output.read_bytes().startswith(b"\x89PNG")


def test_broken_videos_are_shown_and_counted(demo, tmp_path):
    for video in (demo / "val").rglob("*.mp4"):
        video.write_bytes(b"no video")
    done = look(demo, tmp_path / "sheet.png", "--split", "val")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("0 clips, 2 videos can't be used\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--augment.rase", 1.0], "augment.rase"),
        (["--output", "sheet.xyz"], "must end in .png, .pdf or .svg"),
        (["--videos", 0], "--videos"),
    ],
)
def test_faults_are_told_and_nothing_is_written(demo, tmp_path, arguments, told):
    done = look(demo, tmp_path / "sheet.png", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_other_commands_take_no_overrides(tmp_path):
    done = prepare("demo", "--output", tmp_path, "--augment.erase", 1.0)
    assert done.returncode == 2
    assert done.stderr == "error: No such option '--augment.erase'.\n"


def test_images_are_shown_with_their_label_maps_and_never_as_clips_of_a_class(tmp_path):
    write_ade20k_standin(tmp_path / "scenes", train=3, val=1)
    config = ROOT / "tests" / "unit" / "small_segmentation.yaml"
    scenes = ("--data.train", tmp_path / "scenes" / "train.parquet", "--model.num-classes", 8)
    done = prepare("look", "--config", config, "--output", tmp_path / "sheet.png", "--videos", 2, *scenes)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'sheet.png'}: 2 train crops\n"), done.stderr
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    done = prepare("look", "--config", CONFIG, "--output", tmp_path / "no.png", *scenes[:2])
    assert done.returncode == 2
    assert done.stderr.endswith("train.parquet is for segmentation, the experiment is classification\n")
