"""Skipped steps on disk: what is kept of each, how many, and what happens where nothing can be written."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.stream.plan import Cursor
from morphmlp.errors import CheckpointError
from morphmlp.training.loop.state import checkpoint_from
from morphmlp.training.loop.step_guard import SkippedStep
from morphmlp.training.replay import skipped_steps
from morphmlp.training.replay.skipped_steps import (
    read_skipped_state,
    read_skipped_step,
    save_skipped_step,
    skipped_step_folder,
    step_plans,
)

RECIPE = tiny.recipe_of()
VIDEOS = manifest_from_rows(
    video_ids=[f"v{row:02d}" for row in range(12)],
    paths=[f"v{row:02d}.mp4" for row in range(12)],
    labels=[row % tiny.CLASSES for row in range(12)],
    splits=["train"] * 12,
    sizes_bytes=[1] * 12,
    class_names=["a", "b", "c", "d"],
)
NAN = float("nan")


def strictly(path):
    """JSON as its standard has it, without NaN and infinities."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)


def save(folder, *, step=3, loss=NAN, grad_norm=float("inf"), state=None):
    return save_skipped_step(
        folder,
        SkippedStep(step=step, epoch=step // 2, loss=loss, grad_norm=grad_norm),
        state or tiny.new_state(tiny.CONFIG, tiny.CPU),
        config=tiny.CONFIG,
        data_fingerprint="12:abc",
        plan=RECIPE.plan,
        videos=VIDEOS,
        num_workers=2,
    )


def test_a_step_is_kept_with_its_videos_and_keys(tmp_path):
    lines = save(tmp_path / "skipped-steps")
    assert lines == [
        f"step 4 is skipped: loss nan, gradient norm inf; repeat it with `python pipelines/replay.py {tmp_path} 4`"
    ]
    content = strictly(tmp_path / "skipped-steps" / "step-00000004" / "step.json")
    assert (content["step"], content["cursor"]) == (4, {"epoch": 1, "step": 1})
    assert (content["loss"], content["grad_norm"]) == ("nan", "inf")
    assert (content["seed"], content["num_workers"], content["precision"]) == (0, 2, "fp32")
    batches = content["micro_batches"]
    assert [(batch["index"], batch["worker"]) for batch in batches] == [(0, 0), (1, 1), (2, 0)]
    planned = list(RECIPE.plan.micro_batches(Cursor(epoch=1, step=1), worker=0, num_workers=1))
    assert [[video["row"] for video in batch["videos"]] for batch in batches] == [
        plan.rows.tolist() for plan in planned
    ]
    row = int(planned[2].rows[1])
    assert batches[2]["videos"][1] == {
        "row": row,
        "video_id": f"v{row:02d}",
        "path": f"v{row:02d}.mp4",
        "label": row % 4,
        "clip_keys": [[0, 1, f"v{row:02d}", 0], [0, 1, f"v{row:02d}", 1]],
    }
    assert batches[1]["mixing_key"] == [0, 1, 1, 1, "mixing"]
    assert batches[1]["drop_path_key"] == [0, 1, 1, 1, "drop path"]


def test_the_state_is_kept_with_the_cursor_of_the_step_itself(tmp_path):
    """On a GPU the host hears of a step when the next one has begun."""
    state, _ = tiny.train(tiny.recipe_of(max_steps=2))
    state.cursor = Cursor(epoch=2, step=0)
    save(tmp_path, state=state)
    place = skipped_step_folder(tmp_path, 4)
    checkpoint = checkpoint_from(read_skipped_state(place))
    assert checkpoint.cursor == read_skipped_step(place).cursor == Cursor(epoch=1, step=1)
    assert checkpoint.model.keys() == state.model.state_dict().keys()
    assert all(torch.equal(checkpoint.model[name], value) for name, value in state.model.state_dict().items())
    moments, kept = state.optimizer.state_dict()["state"], checkpoint.parts["optimizer"]["state"]
    assert all(torch.equal(kept[key]["exp_avg"], moments[key]["exp_avg"]) for key in moments)


def test_what_was_kept_is_read_back(tmp_path):
    save(tmp_path, loss=1.5, grad_norm=float("-inf"))
    stored = read_skipped_step(skipped_step_folder(tmp_path, 4))
    assert (stored.loss, stored.grad_norm, stored.num_workers) == (1.5, float("-inf"), 2)
    assert (stored.precision, stored.data_fingerprint) == ("fp32", "12:abc")
    assert read_skipped_step(skipped_step_folder(tmp_path, 3)) is None
    (stored.folder / "state.pt").unlink()  # a sweep made room
    assert read_skipped_step(stored.folder) is None


def test_with_fp16_the_loss_scale_is_the_one_that_the_step_was_taken_with(tmp_path):
    """The scaler halves it at the end of the very step."""
    state = tiny.new_state(tiny.CONFIG, tiny.CPU, precision="fp16")
    before = state.scaler.get_scale()
    state.optimizer.zero_grad()
    for parameter in state.model.parameters():
        parameter.grad = torch.full_like(parameter, NAN)
    state.scaler.scale(torch.zeros(()))  # as a backward pass would
    state.scaler.unscale_(state.optimizer)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    assert state.scaler.get_scale() == before / 2
    save(tmp_path, state=state)
    place = skipped_step_folder(tmp_path, 4)
    assert strictly(place / "step.json")["loss_scale"] == before
    restored = tiny.new_state(tiny.CONFIG, tiny.CPU, precision="fp16")
    restored.scaler.load_state_dict(read_skipped_state(place)["scaler"])
    assert restored.scaler.get_scale() == before


def test_only_so_many_are_kept_and_the_others_have_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(skipped_steps, "KEPT_SKIPPED_STEPS", 2)
    lines = [line for step in (0, 1, 4, 5) for line in save(tmp_path, step=step)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not-kept.jsonl", "step-00000001", "step-00000002"]
    assert [json.loads(line)["step"] for line in (tmp_path / "not-kept.jsonl").read_text().splitlines()] == [5, 6]
    assert "KEPT_SKIPPED_STEPS" in (tmp_path / "not-kept.jsonl").read_text()
    assert all("2 skipped steps are kept" in line for line in lines[2:])
    assert not any("kept" in line for line in lines[:2])


def test_a_step_that_is_met_again_after_a_restart_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(skipped_steps, "KEPT_SKIPPED_STEPS", 1)
    save(tmp_path, loss=1.0)
    save(tmp_path, loss=2.0)
    assert read_skipped_step(skipped_step_folder(tmp_path, 4)).loss == 1.0
    assert not (tmp_path / "not-kept.jsonl").exists()


def test_a_step_whose_state_was_half_written_is_not_there(tmp_path):
    place = skipped_step_folder(tmp_path, 4)
    place.mkdir(parents=True)
    (place / "state.pt").write_bytes(b"half")
    assert read_skipped_step(place) is None
    save(tmp_path)
    assert checkpoint_from(read_skipped_state(place)).cursor == Cursor(epoch=1, step=1)


def test_a_run_goes_on_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (line,) = save(tmp_path / "file" / "skipped-steps")
    assert line.startswith("step 4 is skipped: loss nan")
    assert "couldn't be kept" in line
    assert "Not a directory" in line


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', '{"format": "morphmlp-skipped-step-1"}'])
def test_another_file_is_named(tmp_path, text):
    (tmp_path / "step.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"step\.json: is no skipped step of this project"):
        read_skipped_step(tmp_path)


def test_a_state_is_read_without_running_pickled_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "state.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"state\.pt: can't be read"):
        read_skipped_state(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_steps_plans_are_those_of_that_step_alone():
    cursor = Cursor(epoch=2, step=0)
    plans = step_plans(replace(RECIPE.plan, micro_batch_size=4), cursor)
    assert [(plan.epoch, plan.step, plan.index, len(plan.rows)) for plan in plans] == [(2, 0, 0, 4), (2, 0, 1, 2)]
