"""docs/own-data.md as a user follows it: from a folder of 12 classes to a fine-tuned model, on generated videos."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from morphmlp.data.synthetic.demo_task import PAIRS, draw_scene, render_events
from morphmlp.data.synthetic.kinetics_layout import write_video

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "own-data.md"
EVENTS = tuple(sorted({event for pair in PAIRS for event in pair}))
COLOURS = {"red": (220.0, 40.0, 40.0), "green": (40.0, 200.0, 60.0), "blue": (50.0, 70.0, 230.0)}
OTHER_COLOURS = {"yellow": (230.0, 220.0, 40.0), "purple": (170.0, 50.0, 190.0)}
"""Of the videos that the pretrained network has seen: the same events, but none of the classes."""
VIDEOS, OTHER_VIDEOS = 24, 60
"""Of each class; 17 and 48 to train on."""
SEED = 0
RECIPE = ("--optim.warmup_epochs", "1", "--train.global_batch_size", "16", "--train.micro_batch_size", "8")
RECIPE += ("--cluster.num_workers", "2", "--execution.validate_every_epochs", "5")
QUICK = (*RECIPE, "--train.epochs", "10", "--optim.lr", "1e-3")
"""The same for both trainings that are compared."""
PRETRAINING = (*RECIPE, "--train.epochs", "10", "--optim.lr", "2e-3")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def commands():
    """The commands of the page, in its order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def run(line, folder, *more):
    """What a command of the page prints, run as it stands in a folder of the user's."""
    python, script, *arguments = [*shlex.split(line), *more]
    assert python == "python"
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_videos(folder, colours, count):
    """Class folders `<colour> <event>`: what a shape does, and of what colour it is."""

    def write(task):
        colour, event, number = task
        rng = np.random.default_rng([*map(ord, colour), EVENTS.index(event), number])
        scene = dataclasses.replace(draw_scene(rng), colour=colours[colour])
        write_video(folder / f"{colour} {event}" / f"clip {number}.mp4", render_events(scene, [event], rng=rng))

    for colour in colours:
        for event in EVENTS:
            (folder / f"{colour} {event}").mkdir(parents=True)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, ((c, e, n) for c in colours for e in EVENTS for n in range(count))))


def pretrain(folder, seed):
    """A run on videos of other classes, whose checkpoint is `pretrained/weights.pth`."""
    write_videos(folder / "other-videos", OTHER_COLOURS, OTHER_VIDEOS)
    run("python pipelines/prepare.py folder other-videos --output data/other --split 80/10/10", folder)
    options = (*PRETRAINING, "--train.seed", str(seed), "--run-name", "other", "--json", "other.json")
    run("python pipelines/train.py --config data/other/experiment.yaml", folder, *options)
    (folder / "pretrained").mkdir()
    [checkpoint] = sorted((folder / "runs" / "other").rglob("checkpoint.pt"))[-1:]
    shutil.copy(checkpoint, folder / "pretrained" / "weights.pth")


def follow(folder, seed):
    """The page's commands in a folder of the user's: what each printed."""
    write_videos(folder / "my-videos", COLOURS, VIDEOS)
    printed = {}
    for place, line in enumerate(commands()):
        name = line.rpartition("--config data/")[2].partition("/")[0]
        more = (*QUICK, "--train.seed", str(seed), "--json", f"{name}.json") if "train.py" in line else ()
        printed[place, line] = run(line, folder, *more)
    return printed


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The page, followed to its end: a folder, and what every command printed."""
    folder = tmp_path_factory.mktemp("user")
    pretrain(folder, SEED)
    return folder, follow(folder, SEED)


def result(folder, name):
    """Top-1 and number of scored videos."""
    said = json.loads((folder / f"{name}.json").read_text())
    return said["scores"]["top1"], said["num_videos"]


def test_every_command_of_the_page_works_and_both_runs_stand_in_the_table(followed):
    _, printed = followed
    first, *_, table = printed.values()
    assert "found: 288 videos; passed over: nothing\n" in first
    assert re.findall(r"^(\w+): (\d+) videos of 12 classes", first, re.MULTILINE) == [
        ("train", "204"),
        ("val", "24"),
        ("test", "60"),
    ]
    rows = [line for line in table.splitlines() if line.startswith(("| mine-scratch", "| mine-finetune"))]
    assert len(rows) == 2


def test_fine_tuning_from_other_classes_is_better_than_training_from_scratch_as_long(followed):
    folder, _ = followed
    (scratch, videos), (finetuned, same_videos) = (result(folder, name) for name in ("mine", "mine-finetune"))
    assert videos == same_videos == 60
    # Chance is 8. Measured: 38 and 70; other seeds of the same kind gained 13 points and more.
    assert scratch > 16
    assert finetuned > scratch + 8
