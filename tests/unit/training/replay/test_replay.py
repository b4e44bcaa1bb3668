"""A run of a few steps on real files, and its steps taken again."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny_training as tiny
import torch

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_yaml
from morphmlp.data.manifest import Manifest, manifest_from_rows, read_manifest, write_manifest
from morphmlp.data.quarantine import BrokenVideo, Quarantine
from morphmlp.data.stream.plan import Cursor
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.errors import CheckpointError, ConfigError, ManifestError
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore
from morphmlp.training.loop.loop import StepSummary, fit
from morphmlp.training.loop.state import snapshot
from morphmlp.training.loop.step_guard import StepGuard
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.replay.replay import open_run, replay
from morphmlp.training.replay.skipped_steps import save_skipped_step

STEPS = 6
SPOILT_STEP = 5
"""Before it a weight becomes so great that its products overflow."""


class Notes:
    """Progress that nobody watches."""

    def __init__(self):
        self.lines = []

    def phase(self, title, *, total, unit):
        self.lines.append(f"{title}: {total} {unit}")

    def update(self, done, note=""):
        pass

    def line(self, text):
        self.lines.append(text)


class FilesHere:
    """The clips of a run's files, decoded in this process: what one worker gets."""

    def __init__(self, run):
        self.run = run

    def train(self, cursor):
        for step in range(cursor.step, self.run.recipe.plan.steps_per_epoch):
            yield self.run.micro_batches(replace(cursor, step=step), tiny.CPU)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train=8, val=8, test=8)
    return folder


def write_run(root, demo, **overrides):
    """A run's folder as it is before the first step."""
    config = load_config(
        tiny.SMALL,
        {
            "model.depths": [1, 1, 1, 1],
            "model.embed_dims": [16, 16, 16, 16],
            "model.num_classes": 8,
            "data": {split: str(demo / f"{split}.parquet") for split in ("train", "val", "test")},
            "train.global_batch_size": 4,
            "cluster.storage": str(root.parent),
            **overrides,
        },
    )
    root.mkdir(parents=True)
    RunFolder(root).experiment.write_text(config_to_yaml(config))
    return config


@pytest.fixture(scope="module")
def finished(demo, tmp_path_factory):
    """A run's folder with checkpoints after steps 2 and 4 and a skipped step; and loss and norm of every step."""
    root = tmp_path_factory.mktemp("runs") / "finished"
    config = write_run(root, demo)
    run = open_run(str(root), storage=root.parent)
    store = CheckpointStore.of(str(root.parent), root.name)
    fingerprint = run.videos.fingerprint()
    state = tiny.new_state(config, tiny.CPU)
    skipped = []

    def keep(step):
        skipped.append(step)
        save_skipped_step(
            run.folder.skipped_steps,
            step,
            state,
            config=config,
            data_fingerprint=fingerprint,
            plan=run.recipe.plan,
            videos=run.videos,
            num_workers=1,
        )

    guard = StepGuard(max_in_a_row=3, on_skipped=keep)
    numbers = []
    lines = []
    for summary in fit(state, state.model, FilesHere(run), recipe=run.recipe, device=tiny.CPU, guard=guard):
        if isinstance(summary, StepSummary):
            step = summary.step + 1
            loss = float(summary.totals.loss_sum) / max(float(summary.totals.clips), 1)
            numbers.append((loss, float(summary.grad_norm)))
            lines.append({"points": [("train/loss", loss, step, 0), ("train/grad_norm", numbers[-1][1], step, 0)]})
            if step in (2, 4):
                content = snapshot(state, config=config, data_fingerprint=fingerprint)
                store.save(content, CheckpointFacts(epoch=state.cursor.epoch, step=step, score=None))
            if step == SPOILT_STEP - 1:
                with torch.no_grad():
                    state.model.patch_embed1.proj2.weight[0] = 3e38
    assert [(one.step + 1, len(numbers)) for one in skipped[:1]] == [(SPOILT_STEP, STEPS)]
    run.folder.progress.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root, numbers


def replayed(root, number, **options):
    notes = Notes()
    run = open_run(str(root), storage=root.parent)
    options = {"device": tiny.CPU, "num_workers": None, "progress": notes, **options}
    return replay(run, number, **options), notes.lines


@pytest.mark.parametrize(
    ("number", "origin", "before"), [(1, "the beginning", 0), (3, "step-00000002", 0), (4, "step-00000002", 1)]
)
def test_an_ordinary_step_is_the_runs_to_the_last_bit(finished, number, origin, before):
    root, numbers = finished
    step, lines = replayed(root, number)
    assert (step.loss, step.grad_norm) == numbers[number - 1]
    assert step.as_recorded is True
    assert not step.skipped
    assert origin in step.from_state
    assert step.steps_before == before
    assert lines == (["training again up to the step: 1 steps"] if before else [])


def test_a_skipped_step_is_taken_with_the_state_that_it_met(finished):
    step, lines = replayed(finished[0], SPOILT_STEP)
    assert step.skipped
    assert step.as_recorded is True
    assert not torch.isfinite(torch.tensor([step.loss, step.grad_norm])).all()
    assert "skipped-steps/step-00000005" in step.from_state
    assert (step.steps_before, step.epoch, lines) == (0, 3, [])


def test_it_is_told_where_numbers_stop_being_finite(finished):
    step, _ = replayed(finished[0], SPOILT_STEP)
    for batch in step.micro_batches:
        assert batch.first_not_finite == "patch_embed1.proj2"
        assert batch.logits_finite < 1
        assert batch.num_not_finite >= len(batch.not_finite) > 0
        assert set(batch.grad_norms) == {"BatchNorm", "decayed", "one-dimensional"}


def test_a_sound_step_shows_its_videos_losses_and_gradients(finished):
    step, _ = replayed(finished[0], 3)
    run = open_run(str(finished[0]), storage=finished[0].parent)
    planned = [plan.rows.tolist() for plan in run.recipe.plan.micro_batches(Cursor(epoch=1), worker=0, num_workers=1)]
    assert [[video.row for video in batch.videos] for batch in step.micro_batches] == planned[:2]
    names = run.videos.table["video_id"].to_pylist()
    for batch in step.micro_batches:
        assert all(video.video_id == names[video.row] and video.broken is None for video in batch.videos)
        assert all(video.class_name == run.videos.class_names[video.label] for video in batch.videos)
        assert (batch.clips, batch.first_not_finite, batch.not_finite, batch.logits_finite) == (4, None, (), 1.0)
        assert 0 <= batch.pixel_min < batch.pixel_max <= 255
        assert all(norm > 0 for norm in batch.grad_norms.values())
    assert step.loss == pytest.approx(sum(batch.loss for batch in step.micro_batches) / 2, rel=1e-6)


def test_as_two_workers_the_numbers_agree_up_to_rounding(finished):
    one, _ = replayed(finished[0], 4)
    two, _ = replayed(finished[0], 4, num_workers=2)
    assert [batch.worker for batch in two.micro_batches] == [0, 1]
    assert (two.loss, two.grad_norm) == pytest.approx((one.loss, one.grad_norm), rel=1e-4)


def test_augmenting_on_the_device_takes_the_same_step(finished, tmp_path):
    root = tmp_path / "finished"
    shutil.copytree(finished[0], root)
    config = load_config(RunFolder(root).experiment, {"augment.on": "worker"})
    RunFolder(root).experiment.write_text(config_to_yaml(config))
    step, _ = replayed(root, 3)
    assert (step.loss, step.grad_norm) == finished[1][2]


def test_a_mean_over_several_steps_is_not_compared_with_one(finished, tmp_path):
    root = tmp_path / "finished"
    shutil.copytree(finished[0], root)
    progress = RunFolder(root).progress
    lines = progress.read_text().splitlines(keepends=True)
    progress.write_text("".join(line for line in lines if json.loads(line)["points"][0][2] != 2))
    assert replayed(root, 3)[0].as_recorded is None


def test_a_damaged_checkpoint_is_left_out_and_the_one_before_is_used(finished, tmp_path):
    root = tmp_path / "finished"
    shutil.copytree(finished[0], root)
    shutil.rmtree(root / "skipped-steps")
    (newest,) = root.glob("checkpoints/step-00000004-*")
    (newest / "checkpoint.pt").write_bytes(b"truncated")
    step, lines = replayed(root, 5)
    assert "step-00000002" in step.from_state
    assert step.steps_before == 2
    assert lines[0].startswith("checkpoint left out: ")
    assert newest.name in lines[0]


def test_a_run_is_found_by_name_or_folder(finished):
    root, _ = finished
    assert open_run("finished", storage=root.parent).folder.root == root
    with pytest.raises(ConfigError, match=r"nothing: no such run, neither .* holds finished"):
        open_run("nothing", storage=root.parent)
    with pytest.raises(ConfigError, match="holds no runs"):
        open_run("nothing", storage=root / "checkpoints")


@pytest.mark.parametrize("number", [0, STEPS + 1])
def test_a_step_that_the_run_does_not_have_is_refused(finished, number):
    with pytest.raises(ConfigError, match=f"step {number}: .* has steps 1 to {STEPS}"):
        replayed(finished[0], number)


@pytest.mark.parametrize("workers", [0, 3])
def test_more_workers_than_micro_batches_are_refused(finished, workers):
    with pytest.raises(ConfigError, match=f"--workers {workers}: a step has 2 micro-batches; use 1 to 2 workers"):
        replayed(finished[0], 3, num_workers=workers)


def test_a_step_is_added_up_as_the_workers_of_the_ledger_did(finished, tmp_path):
    root = tmp_path / "finished"
    shutil.copytree(finished[0], root)
    ledger = RunFolder(root).ledger
    ledger.mkdir()
    for worker in (0, 1):
        lines = [
            {"first_step": 2, "worker": worker, "num_workers": 2},
            {"step": 2, "epoch": 1, "videos": ["v"], "broken": []},
        ]
        file = ledger / f"1-0123abcd-worker{worker}-of-2.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [replayed(root, number)[0].num_workers for number in (3, 4)] == [2, 1]


def moved_run(finished, tmp_path, **cells):
    """A copy of the run over a manifest with other cells in its rows."""
    root = tmp_path / "finished"
    shutil.copytree(finished[0], root)
    config = load_config(RunFolder(root).experiment)
    manifest = read_manifest(config.data.train)
    columns = {**manifest.table.to_pydict(), **cells}
    changed = manifest_from_rows(
        video_ids=columns["video_id"],
        paths=columns["path"],
        labels=columns["label"],
        splits=columns["split"],
        sizes_bytes=columns["size_bytes"],
        class_names=manifest.class_names,
    )
    write_manifest(Manifest(changed.table, manifest.class_names), tmp_path / "train.parquet")
    config = replace(config, data=replace(config.data, train=str(tmp_path / "train.parquet")))
    RunFolder(root).experiment.write_text(config_to_yaml(config))
    return root


def test_a_manifest_of_other_videos_is_refused(finished, tmp_path):
    root = moved_run(finished, tmp_path, label=[0] * 8)
    with pytest.raises(ManifestError, match="its videos aren't those of the run any more"):
        replayed(root, 3)


def test_a_file_of_another_size_is_refused(finished, tmp_path):
    root = moved_run(finished, tmp_path, size_bytes=[17] * 8)
    with pytest.raises(ManifestError, match=r"bytes, the manifest says 17: the file was changed"):
        replayed(root, 3)


def test_a_file_that_is_gone_is_refused_unless_the_run_could_not_read_it_either(finished, tmp_path):
    root = moved_run(finished, tmp_path, path=[str(tmp_path / f"gone{row}.mp4") for row in range(8)])
    with pytest.raises(ManifestError, match=r"gone\d.mp4 \(video .*\) can't be used any more: .*; the run could read"):
        replayed(root, 3)
    quarantine = Quarantine()
    names = read_manifest(tmp_path / "train.parquet").table["video_id"].to_pylist()
    quarantine.add(broken(name) for name in names)
    quarantine.write(RunFolder(root).quarantine, run="finished")
    step, _ = replayed(root, 3)
    assert all(video.broken for batch in step.micro_batches for video in batch.videos)
    assert (step.loss, step.grad_norm) == (0.0, 0.0)


def broken(name):
    return BrokenVideo(**{**vars(tiny.broken_video(0)), "video_id": name})


def test_another_skipped_step_is_named(finished, tmp_path):
    root = tmp_path / "finished"
    shutil.copytree(finished[0], root)
    (root / "skipped-steps" / "step-00000005" / "step.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is no skipped step of this project"):
        replayed(root, 5)
