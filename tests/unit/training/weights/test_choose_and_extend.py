"""`--start-from` and `--extend`: what they choose, and that an extended run is exact about the epochs that it takes."""

from dataclasses import replace

import pytest
import tiny_training as tiny
import torch

from morphmlp.config.loading import config_from_mapping, config_to_mapping, config_to_yaml, with_overrides
from morphmlp.errors import CheckpointError, ConfigError
from morphmlp.tasks.factory import task_of
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.checkpoint.store import CheckpointFacts
from morphmlp.training.loop.state import snapshot
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.weights.choose import extending, starting_from
from morphmlp.training.weights.start import apply_start_weights, start, start_tag, tensor_account, with_checked_weights

NAMES = ("archery", "bowling", "crying", "dancing")
DATA = "12:abc"


def config_with(overrides, config=tiny.CONFIG):
    return config_from_mapping(with_overrides(config_to_mapping(config), overrides))


@pytest.fixture
def here(tmp_path):
    return config_with({"cluster.storage": str(tmp_path / "runs")})


def finished_run(config, name="first", *, scores=(10.0,)):
    """A run that was trained for some epochs, with a checkpoint after each."""
    folder = RunFolder(tiny.Path(config.cluster.storage) / name)
    folder.root.mkdir(parents=True)
    folder.experiment.write_text(config_to_yaml(config))
    store, state = run_store(config.checkpoint, folder), tiny.new_state(config, tiny.CPU)
    for epoch, score in enumerate(scores, start=1):
        tiny.train(tiny.recipe_of(config, max_steps=2 * epoch), config=config, state=state)
        content = snapshot(state, config=config, data_fingerprint=DATA)
        store.save(content, CheckpointFacts(epoch=epoch, step=2 * epoch, score=score))
    return folder, state


def chosen(choose, config, source):
    lines = []
    return choose(config, str(source), lines.append), lines


def test_a_file_is_taken_as_it_is_where_nothing_must_be_changed(here, tmp_path):
    torch.save(task_of(here).network().state_dict(), tmp_path / "w.pth")
    config, lines = chosen(starting_from, here, tmp_path / "w.pth")
    assert lines == []
    assert (config.start_from.weights, config.start_from.replace_head) == (str(tmp_path / "w.pth"), False)
    assert config.start_from.inflate is None


def test_a_head_of_other_classes_starts_fresh_and_a_line_says_so(here, tmp_path):
    other = config_with({"model.num_classes": 12}, here)
    torch.save(task_of(other).network().state_dict(), tmp_path / "w.pth")
    config, (line,) = chosen(starting_from, here, tmp_path / "w.pth")
    assert line == f"--start-from {tmp_path}/w.pth: 12 classes there, 4 here: the head starts fresh"
    assert config.start_from.replace_head
    account = tensor_account(config, NAMES)
    assert account["fresh"] == account["left"] == ["head.weight", "head.bias"]
    assert len(account["taken"]) == len(task_of(here).network().state_dict()) - 2
    *_, last = apply_start_weights(task_of(config).network(), config, NAMES)
    assert last == f"start_from: tensors: {len(account['taken'])} taken, 2 fresh, 2 of the file left"


def test_image_weights_get_a_time_axis(here, tmp_path):
    image = config_with({"model.temporal": "none", "clip.num_frames": 1}, here)
    torch.save(task_of(image).network().state_dict(), tmp_path / "w.pth")
    config, (line,) = chosen(starting_from, here, tmp_path / "w.pth")
    assert line.endswith("its convolutions get a time axis (start_from.inflate: centre)")
    assert config.start_from.inflate == "centre"
    assert with_checked_weights(config, NAMES).start_from.sha256 is not None


@pytest.mark.parametrize("which", ["last", "best"])
def test_of_a_run_the_checkpoint_is_taken_that_it_tests(which, here):
    config = replace(here, test=replace(here.test, checkpoint=which))
    folder, _ = finished_run(config, scores=(20.0, 10.0))
    by_name, (line,) = chosen(starting_from, here, "first")
    by_folder, _ = chosen(starting_from, here, folder.root)
    assert by_name == by_folder
    step = {"last": "step-00000004", "best": "step-00000002"}[which]
    assert f"/first/checkpoints/{step}-" in by_name.start_from.weights
    assert line.startswith(
        f"--start-from first: {by_name.start_from.weights} ({which} checkpoint, step {int(step[5:])}"
    )
    assert start_tag(with_checked_weights(by_name, NAMES).start_from).startswith(f"first/{step}-")


@pytest.mark.parametrize("choose", [starting_from, extending])
def test_what_is_neither_file_nor_run_is_refused(choose, here):
    with pytest.raises(
        ConfigError, match=r"nothing: neither a file of weights nor a run; runs are looked for in .*runs"
    ):
        chosen(choose, here, "nothing")


def test_a_run_without_a_checkpoint_is_refused(here):
    finished_run(here, scores=())
    with pytest.raises(ConfigError, match=r"--extend first: .*/first/checkpoints holds no checkpoint yet"):
        chosen(extending, here, "first")


CONSTANT = {"optim.min_lr": 1e-3, "optim.lr": 1e-3, "optim.warmup_epochs": 0.0, "train.ema_decay": 0.5}


IN_STEPS = {"train.epochs": None, "optim.warmup_epochs": None, "optim.warmup_steps": 0}
IN_EPOCHS = {"train.steps": None, "optim.warmup_epochs": 0.0, "optim.warmup_steps": None}
EPOCHS = ({"train.epochs": 2}, {"train.epochs": 4})
STEPS = ({**IN_STEPS, "train.steps": 4}, {**IN_STEPS, "train.steps": 8})


@pytest.mark.parametrize(
    ("begun", "then", "words"),
    [
        (EPOCHS[0], EPOCHS[1], "after 2 epochs, up to 4; the learning rate there was 1.00e-03 of 2 epochs and is"),
        (STEPS[0], STEPS[1], "after 4 steps, up to 8; the learning rate there was 1.00e-03 of 4 steps and is"),
        (EPOCHS[0], STEPS[1], "after 4 steps, up to 8 steps; the learning rate there was 1.00e-03 of 2 epochs and is"),
        (
            STEPS[0],
            {**IN_EPOCHS, **EPOCHS[1]},
            "after 2 epochs, up to 4 epochs; the learning rate there was 1.00e-03 of 4 steps and is",
        ),
    ],
)
def test_an_extended_run_ends_bit_for_bit_as_one_of_that_length_where_the_schedules_agree(begun, then, words, here):
    config = config_with({**CONSTANT, **begun}, here)
    finished_run(config, scores=(1.0, 2.0))
    longer = config_with(then, config)
    extended, _ = chosen(extending, longer, "first")
    checked = with_checked_weights(extended, NAMES)
    state = tiny.new_state(checked, tiny.CPU)
    (line,) = start(state, checked, NAMES, data_fingerprint=DATA)
    assert "continues first/step-00000004-" in line
    assert f"{words} 1.00e-03 now" in line
    _, after = tiny.train(tiny.recipe_of(checked), config=checked, state=state)
    whole, summaries = tiny.train(tiny.recipe_of(longer), config=longer)
    assert tiny.losses_of(after) == tiny.losses_of(summaries)[4:]
    contents = [snapshot(one, config=longer, data_fingerprint=DATA) for one in (state, whole)]
    assert tiny.equal(*contents)


def test_an_extended_run_follows_its_own_schedule_from_there(here):
    config = config_with({"train.epochs": 2}, here)
    finished_run(config, scores=(1.0, 2.0))
    changed = config_with({"train.epochs": 4, "optim.weight_decay": 0.3, "optim.lr": 2e-3}, config)
    checked = with_checked_weights(chosen(extending, changed, "first")[0], NAMES)
    state = tiny.new_state(checked, tiny.CPU)
    start(state, checked, NAMES, data_fingerprint=DATA)
    assert {group["weight_decay"] for group in state.optimizer.param_groups} == {0.0, 0.3}
    _, after = tiny.train(tiny.recipe_of(checked), config=checked, state=state)
    _, whole = tiny.train(tiny.recipe_of(changed), config=changed)
    rates = [[getattr(summary, "lr", None) for summary in summaries] for summaries in (after, whole)]
    assert rates[0] == rates[1][6:]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"train.epochs": 2}, "train.epochs: 2 epochs, of which 2 are done in "),
        ({**IN_STEPS, "train.steps": 4}, "train.steps: 4 steps, of which 4 are done in "),
        ({"train.max_steps": 3}, "train.max_steps: 3 steps, and 4 are done in .*; set more to extend it, or null"),
        ({"train.max_steps": 4}, "train.max_steps: 4 steps, and 4 are done in "),
        ({"model.drop_path_rate": 0.3}, r"undo: model.drop_path_rate: 0.1 -> 0.3"),
        ({"train.seed": 1}, r"undo: train.seed: 0 -> 1"),
        ({"train.freeze": ["stem"]}, r"undo: train.freeze: None -> \['stem'\]"),
    ],
)
def test_only_length_schedule_and_test_may_differ(changes, fault, here):
    config = config_with({"train.epochs": 2}, here)
    finished_run(config, scores=(1.0, 2.0))
    longer = config_with({"train.epochs": 4, **changes}, config)
    with pytest.raises(ConfigError, match=fault):
        with_checked_weights(chosen(extending, longer, "first")[0], NAMES)


def test_a_limit_of_steps_that_leaves_some_is_no_fault(here):
    config = config_with({"train.epochs": 2, "train.max_steps": 4}, here)
    finished_run(config, scores=(1.0, 2.0))
    for limit in (5, None):
        longer = config_with({"train.epochs": 4, "train.max_steps": limit}, config)
        with_checked_weights(chosen(extending, longer, "first")[0], NAMES)


def test_other_videos_are_refused(here):
    config = config_with({"train.epochs": 2}, here)
    finished_run(config, scores=(1.0, 2.0))
    checked = with_checked_weights(chosen(extending, config_with({"train.epochs": 4}, config), "first")[0], NAMES)
    with pytest.raises(CheckpointError, match="training manifest: 12:abc -> 13:def"):
        start(tiny.new_state(checked, tiny.CPU), checked, NAMES, data_fingerprint="13:def")


def test_a_file_of_weights_has_no_training_state(here, tmp_path):
    torch.save(task_of(here).network().state_dict(), tmp_path / "w.pth")
    config = config_with({"start_from": {"weights": str(tmp_path / "w.pth"), "training_state": True}}, here)
    with pytest.raises(ConfigError, match=r"start_from.training_state: .*w.pth: is not a checkpoint of this project"):
        with_checked_weights(config, NAMES)


def test_a_training_state_is_taken_as_it_is():
    with pytest.raises(ConfigError) as caught:
        config_with({"start_from": {"weights": "w", "training_state": True, "replace_head": True}})
    assert caught.value.faults == (
        "start_from.training_state takes everything as it is, replace_head would change it; choose one of them",
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"epochs": 2, "min_delta": 0.0}),
        ({"epochs": 1, "min_delta": 0.0}, None),
        ({"epochs": 1, "min_delta": 0.0}, {"epochs": 5, "min_delta": 0.5}),
    ],
)
def test_an_extended_run_has_the_patience_that_it_asks_for_and_counts_from_there(before, after, here):
    config = config_with({"train.epochs": 2, "train.early_stopping": before}, here)
    finished_run(config, scores=(2.0, 1.0))
    longer = config_with({"train.epochs": 4, "train.early_stopping": after}, config)
    checked = with_checked_weights(chosen(extending, longer, "first")[0], NAMES)
    state = tiny.new_state(checked, tiny.CPU)
    start(state, checked, NAMES, data_fingerprint=DATA)
    assert (state.early_stopping is None) is (after is None)
    assert state.early_stopping is None or (state.early_stopping.best, state.early_stopping.ended) == (None, False)


def test_starting_from_weights_gives_up_a_whole_training_state_that_the_file_names(here):
    config = config_with({"train.epochs": 2}, here)
    finished_run(config, scores=(1.0, 2.0))
    whole, _ = chosen(extending, config_with({"train.epochs": 4}, config), "first")
    weights, _ = chosen(starting_from, whole, "first")
    assert (whole.start_from.training_state, weights.start_from.training_state) == (True, False)
