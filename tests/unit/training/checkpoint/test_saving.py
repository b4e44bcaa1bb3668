"""When checkpoints are due, which epochs leave one for their validation's sake, and which one is tested."""

import pytest
import tiny_training as tiny

from morphmlp.config import load_config
from morphmlp.config.loading import config_from_mapping, config_to_mapping, with_overrides
from morphmlp.config.operation import CheckpointConfig
from morphmlp.errors import CheckpointError
from morphmlp.tasks.scores import TOP1
from morphmlp.training.checkpoint.content import FORMAT
from morphmlp.training.checkpoint.saving import CheckpointSchedule, Saving, checkpoint_to_test, run_store
from morphmlp.training.checkpoint.store import CheckpointFacts
from morphmlp.training.record.run_folder import RunFolder

NEVER = {"every_epochs": None, "every_steps": None, "every_minutes": None}


@pytest.mark.parametrize(
    ("tested", "saved"),
    [("last", [(4, 50.0), (6, 20.0)]), ("best", [(2, 40.0), (4, 50.0), (6, 20.0)])],
)
def test_the_best_epoch_is_saved_out_of_turn_where_it_is_to_be_tested(tmp_path, tested, saved):
    fields = {"test.checkpoint": tested, "checkpoint.every_epochs": 2, "checkpoint.keep_last": 9}
    config = config_from_mapping(
        with_overrides(config_to_mapping(tiny.CONFIG), {**fields, "cluster.storage": str(tmp_path)})
    )
    store, state, recipe = (
        run_store(config.checkpoint, RunFolder(tmp_path / "run")),
        tiny.new_state(config, tiny.CPU),
        tiny.recipe_of(),
    )
    saving = Saving(state, store, config=config, data_fingerprint="x", recipe=recipe, restored=None)
    for score in (40.0, 50.0, 20.0):
        for _ in range(recipe.plan.steps_per_epoch):
            state.cursor = recipe.plan.advance(state.cursor)
        saving.after_round(score=score)
    saving.finish(hurry=lambda: False, log=pytest.fail)
    assert [(one.facts.step, one.facts.score) for one in store.stored()] == saved


def to_test(folder, checkpoint, *score):
    """What is tested of a run whose epochs had these validations, and the lines about it."""
    config = load_config(tiny.SMALL, {"test.checkpoint": checkpoint, "cluster.storage": str(folder)})
    store, lines = run_store(config.checkpoint, RunFolder(folder / "run")), []
    for epoch, percent in enumerate(score, start=1):
        facts = CheckpointFacts(epoch=epoch, step=10 * epoch, score=percent)
        store.save({"format": FORMAT, "epoch": epoch}, facts)
    _, content, words = checkpoint_to_test(config, RunFolder(folder / "run"), TOP1, lines.append)
    return content["epoch"], words, lines


@pytest.mark.parametrize(
    ("checkpoint", "score", "epoch", "words"),
    [
        ("last", (50.0, 70.125, 60.0), 3, "last checkpoint, step 30, validation top-1 60.00"),
        ("best", (50.0, 70.125, 60.0), 2, "best checkpoint, step 20, validation top-1 70.12"),
        ("best", (70.0, 70.0, None), 2, "best checkpoint, step 20, validation top-1 70.00"),
        ("last", (50.0, None), 2, "last checkpoint, step 20"),
    ],
)
def test_the_last_or_the_best_checkpoint_is_tested_and_named(tmp_path, checkpoint, score, epoch, words):
    assert to_test(tmp_path, checkpoint, *score) == (epoch, words, [])


def test_where_nothing_was_validated_the_last_is_tested_and_that_is_told(tmp_path):
    epoch, words, (line,) = to_test(tmp_path, "best", None, None)
    assert (epoch, words) == (2, "last checkpoint, step 20")
    assert line.startswith("test.checkpoint: no checkpoint was validated")


def test_a_training_without_a_checkpoint_has_nothing_to_test(tmp_path):
    with pytest.raises(CheckpointError, match="training ended without a checkpoint"):
        to_test(tmp_path, "best")


def schedule_of(clock=lambda: 0.0, **fields):
    return CheckpointSchedule(CheckpointConfig(**{**NEVER, **fields}), total_steps=20, clock=clock)


def test_without_any_rhythm_only_the_end_leaves_a_checkpoint():
    schedule = schedule_of()
    assert not any(schedule.due_after_step(step) for step in range(1, 20))
    assert [epoch for epoch in range(1, 5) if schedule.due_after_round(epoch, step=5 * epoch)] == [4]


@pytest.mark.parametrize(("every", "due"), [(1, list(range(1, 21))), (6, [6, 12, 18]), (50, [])])
def test_by_steps(every, due):
    schedule = schedule_of(every_steps=every)
    assert [step for step in range(1, 21) if schedule.due_after_step(step)] == due


@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3, 4]), (3, [3, 4])])
def test_by_epochs_and_at_the_end(every, due):
    schedule = schedule_of(every_epochs=every)
    assert [epoch for epoch in range(1, 5) if schedule.due_after_round(epoch, step=5 * epoch)] == due


def test_by_time_since_the_last_one():
    now = [0.0]
    schedule = schedule_of(lambda: now[0], every_minutes=1.0)
    due = []
    for step in range(1, 20):
        now[0] += 20.0
        if schedule.due_after_step(step):
            due.append(step)
            schedule.saved()
    assert due == [3, 6, 9, 12, 15, 18]


def test_what_the_last_step_of_an_epoch_owes_is_due_with_the_epoch():
    schedule = schedule_of(every_steps=5)
    assert [epoch for epoch in range(1, 4) if schedule.due_after_round(epoch, step=6 * epoch)] == []
    assert schedule.due_after_round(3, step=15)


def test_the_end_of_a_training_that_ends_early_is_saved_though_it_was_not_due_or_best(tmp_path):
    changes = {"checkpoint.every_epochs": None, "checkpoint.every_minutes": None, "cluster.storage": str(tmp_path)}
    config = config_from_mapping(with_overrides(config_to_mapping(tiny.CONFIG), changes))
    store = run_store(config.checkpoint, RunFolder(tmp_path / "run"))
    state, recipe = tiny.new_state(config, tiny.CPU), tiny.recipe_of()
    saving = Saving(state, store, config=config, data_fingerprint="x", recipe=recipe, restored=None)
    for score, last in ((50.0, False), (20.0, True)):
        for _ in range(recipe.plan.steps_per_epoch):
            state.cursor = recipe.plan.advance(state.cursor)
        saving.after_round(score=score, last=last)
    saving.finish(hurry=lambda: False, log=pytest.fail)
    assert [(one.facts.step, one.facts.score) for one in store.stored()] == [(4, 20.0)]


@pytest.mark.parametrize(
    ("fields", "saved"),
    [
        ({}, [(3, 10.0), (6, 20.0), (8, 30.0)]),
        ({"checkpoint.every_steps": 2}, [(2, None), (3, 10.0), (4, None), (6, 20.0), (8, 30.0)]),
        ({"checkpoint.every_epochs": None}, [(8, 30.0)]),
        ({"checkpoint.every_epochs": None, "checkpoint.every_steps": 3}, [(3, 10.0), (6, 20.0), (8, 30.0)]),
        ({"checkpoint.every_epochs": None, "test.checkpoint": "best"}, [(3, 10.0), (6, 20.0), (8, 30.0)]),
    ],
)
def test_a_training_of_so_many_steps_is_saved_with_each_validation(tmp_path, monkeypatch, fields, saved):
    in_steps = {"train.epochs": None, "train.steps": 8, "optim.warmup_epochs": None, "optim.warmup_steps": 0}
    every = {"execution.validate_every_steps": 3, "checkpoint.every_minutes": None, "checkpoint.keep_last": 9}
    changes = {**in_steps, **every, "cluster.storage": str(tmp_path), **fields}
    config = config_from_mapping(with_overrides(config_to_mapping(tiny.CONFIG), changes))
    store = run_store(config.checkpoint, RunFolder(tmp_path / "run"))
    state, recipe = tiny.new_state(config, tiny.CPU), tiny.recipe_of(config)
    saving = Saving(state, store, config=config, data_fingerprint="x", recipe=recipe, restored=None)
    found, scores = [], iter((10.0, 20.0, 30.0))
    monkeypatch.setattr(saving, "save", lambda *, score=None, required=False: found.append((step, score)))
    for step in range(1, 9):
        state.cursor = recipe.plan.advance(state.cursor)
        if recipe.length.ends_round(step):
            saving.after_round(score=next(scores))
        else:
            saving.after_step()
    assert found == saved
