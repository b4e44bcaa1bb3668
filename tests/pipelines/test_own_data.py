"""docs/own-data.md as a user follows it: from a folder of 12 classes to a fine-tuned model, on generated videos."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from morphmlp.config import load_config
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import TrainPlan, random_generator
from morphmlp.data.synthetic.demo_task import PAIRS, draw_scene, render_events
from morphmlp.data.synthetic.kinetics_layout import write_video
from morphmlp.tasks.factory import task_of
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.checkpoint.store import CheckpointFacts
from morphmlp.training.loop.loop import Recipe, fit
from morphmlp.training.loop.state import new_state, snapshot
from morphmlp.training.record.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "own-data.md"
EVENTS = tuple(sorted({event for pair in PAIRS for event in pair}))
COLOURS = {"red": (220.0, 40.0, 40.0), "green": (40.0, 200.0, 60.0), "blue": (50.0, 70.0, 230.0)}
OTHER_COLOURS = {"yellow": (230.0, 220.0, 40.0), "purple": (170.0, 50.0, 190.0)}
"""Of the videos that the pretrained network has seen: the same events, but none of the classes."""
VIDEOS = 24
"""Of each class, 17 to train on."""
OTHER_VIDEOS = 1000
"""Of each class of the pretrained network, which sees each once."""
SEED = int(os.environ.get("OWN_DATA_SEED", "0"))
"""Of all three trainings."""
QUICK = ("--optim.warmup_epochs", "1", "--train.global_batch_size", "16", "--train.micro_batch_size", "8")
QUICK += ("--cluster.num_workers", "1", "--execution.validate_every_epochs", "10")
QUICK += ("--train.epochs", "10", "--optim.lr", "1e-3")
"""The same for both trainings that are compared."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


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


def write_videos(folder):
    """Class folders `<colour> <event>`: what a shape does, and of what colour it is."""

    def write(task):
        colour, event, number = task
        rng = np.random.default_rng([*map(ord, colour), EVENTS.index(event), number])
        write_video(folder / f"{colour} {event}" / f"clip {number}.mp4", rendered(rng, COLOURS[colour], event))

    for colour in COLOURS:
        for event in EVENTS:
            (folder / f"{colour} {event}").mkdir(parents=True)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, ((c, e, n) for c in COLOURS for e in EVENTS for n in range(VIDEOS))))


def rendered(rng, colour, event):
    """A video's frames, `[t h w c]`."""
    return render_events(dataclasses.replace(draw_scene(rng), colour=colour), [event], rng=rng)


class OtherClips:
    """Clips of videos of the other classes, rendered where a run would decode them."""

    def __init__(self, plan):
        self.plan = plan
        self.classes = [(colour, event) for colour in OTHER_COLOURS.values() for event in EVENTS]

    def train(self, cursor):
        batches = map(self.batch, self.plan.micro_batches(cursor, worker=0, num_workers=1))
        yield from zip(*[batches] * self.plan.micro_batches_per_step, strict=True)

    def batch(self, plan):
        clips = torch.from_numpy(np.stack([self.clip(row) for row in plan.rows.tolist()]))
        labels = torch.from_numpy(plan.rows % len(self.classes))
        return MicroBatch(plan=plan, clips=clips, labels=labels, rows=plan.rows, broken=())

    def clip(self, row):
        rng = random_generator(self.plan.seed, row)
        frames = rendered(rng, *self.classes[row % len(self.classes)])
        begin, top, left = rng.integers(np.array(frames.shape[:3]) - (16, 32, 32) + 1)
        return frames[begin : begin + 16, top : top + 32, left : left + 32]


def pretrain(folder, seed):
    """A demo network that has learnt 8 other classes, as a run's checkpoint: `pretrained/weights.pth`.

    Its steps are taken here: a run of its own would spend as long again on its start.
    """
    num_videos = OTHER_VIDEOS * len(OTHER_COLOURS) * len(EVENTS)
    fields = {"train.epochs": 1, "train.seed": seed, "optim.lr": 2e-3, "optim.warmup_epochs": 0.1}
    config = load_config(ROOT / "experiments" / "demo" / "morphmlp_demo.yaml", fields)
    task, plan, cpu = task_of(config), TrainPlan.of(config.train, num_videos=num_videos), torch.device("cpu")
    state = new_state(task, train=config.train, optim=config.optim, device=cpu)
    recipe = Recipe.of(config, plan=plan, task=task)
    for _ in fit(state, state.model, OtherClips(plan), recipe=recipe, device=cpu):
        pass
    kept = dataclasses.replace(config.checkpoint, storage=str(folder / "runs"))
    stored = run_store(kept, RunFolder(folder / "runs" / "other")).save(
        snapshot(state, config=config, data_fingerprint=f"{num_videos}:none"),
        CheckpointFacts(epoch=1, step=recipe.total_steps, score=None),
    )
    (folder / "pretrained").mkdir()
    shutil.copy(Path(stored.location) / "checkpoint.pt", folder / "pretrained" / "weights.pth")


def follow(folder, seed):
    """The page's commands in a folder of the user's: what each printed.

    Fine-tuning waits for its weights only, and goes on next to the training from scratch.
    """
    lines = commands()
    [place] = [place for place, line in enumerate(lines) if "--weights" in line]

    def follow_each(lines):
        printed = []
        for line in lines:
            name = line.rpartition("--config data/")[2].partition("/")[0]
            more = (*QUICK, "--train.seed", str(seed), "--json", f"{name}.json") if "train.py" in line else ()
            printed.append(run(line, folder, *more))
        return printed

    def fine_tune():
        pretrain(folder, seed)
        return follow_each(lines[place:-1])

    write_videos(folder / "my-videos")
    with ThreadPoolExecutor(2) as threads:
        parts = [threads.submit(fine_tune), threads.submit(follow_each, lines[:place])]
        fine_tuned, from_scratch = (part.result() for part in parts)
    return [*from_scratch, *fine_tuned, *follow_each(lines[-1:])]


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The page, followed to its end: a folder, and what every command printed."""
    folder = tmp_path_factory.mktemp("user")
    return folder, follow(folder, SEED)


def result(folder, name):
    """Top-1 and number of scored videos."""
    said = json.loads((folder / f"{name}.json").read_text())
    return said["scores"]["top1"], said["num_videos"]


def test_every_command_of_the_page_works_and_both_runs_stand_in_the_table(followed):
    _, printed = followed
    first, *_, table = printed
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
    print(f"top-1 after 10 epochs from scratch {scratch:.0f}, fine-tuned {finetuned:.0f}")
    # Chance is 8. Measured with seeds 0, 1, 2: 38 and 73, 35 and 100, 30 and 75. From half as many other videos
    # fine-tuning gave 37 to 67: a network that is still learning them differs by what machines round.
    assert scratch > 16
    assert finetuned > scratch + 16
