"""When checkpoints are due."""

import pytest

from morphmlp.config.operation import CheckpointConfig
from morphmlp.training.checkpoint.schedule import CheckpointSchedule

NEVER = {"every_epochs": None, "every_steps": None, "every_minutes": None}


def schedule_of(clock=lambda: 0.0, **fields):
    return CheckpointSchedule(CheckpointConfig(**{**NEVER, **fields}), total_steps=20, clock=clock)


def test_without_any_rhythm_only_the_end_leaves_a_checkpoint():
    schedule = schedule_of()
    assert not any(schedule.due_after_step(step) for step in range(1, 20))
    assert [epoch for epoch in range(1, 5) if schedule.due_after_epoch(epoch, step=5 * epoch)] == [4]


@pytest.mark.parametrize(("every", "due"), [(1, list(range(1, 21))), (6, [6, 12, 18]), (50, [])])
def test_by_steps(every, due):
    schedule = schedule_of(every_steps=every)
    assert [step for step in range(1, 21) if schedule.due_after_step(step)] == due


@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3, 4]), (3, [3, 4])])
def test_by_epochs_and_at_the_end(every, due):
    schedule = schedule_of(every_epochs=every)
    assert [epoch for epoch in range(1, 5) if schedule.due_after_epoch(epoch, step=5 * epoch)] == due


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
    assert [epoch for epoch in range(1, 4) if schedule.due_after_epoch(epoch, step=6 * epoch)] == []
    assert schedule.due_after_epoch(3, step=15)
