"""What becomes of a step whose numbers aren't finite, and how a wish to stop gets through."""

import math

import pytest
import torch

from morphmlp.training.loop.step_guard import LOSS_SCALE_HALVINGS, StepGuard


def watch(guard, step, *, loss=8.0, norm=1.0, broken=0.0, stop=0.0):
    guard.watch(
        step=step,
        epoch=0,
        loss_sum=torch.tensor(loss),
        clips=torch.tensor(4.0),
        grad_norm=torch.tensor(norm),
        broken=torch.tensor(broken),
        stop=torch.tensor(stop),
    )


@pytest.mark.parametrize("fault", [{"loss": math.nan}, {"loss": math.inf}, {"norm": math.nan}, {"norm": math.inf}])
def test_a_step_that_is_not_finite_is_told_once_with_its_numbers(fault):
    told = []
    guard = StepGuard(max_in_a_row=2, on_skipped=told.append)
    watch(guard, 0)
    watch(guard, 1, **fault)
    guard.check_pending()
    watch(guard, 2)
    (skipped,) = told
    assert (skipped.step, skipped.epoch) == (1, 0)
    assert [skipped.loss, skipped.grad_norm] == pytest.approx(
        [fault.get("loss", 8.0) / 4, fault.get("norm", 1.0)], nan_ok=True
    )
    assert guard.last_skipped is skipped
    assert not guard.gave_up


def test_only_steps_in_a_row_end_the_run():
    guard = StepGuard(max_in_a_row=3)
    for step in range(12):
        watch(guard, step, loss=8.0 if step % 3 == 2 else math.nan)
        assert not guard.gave_up
    for step in range(12, 15):
        assert not guard.gave_up
        watch(guard, step, loss=math.nan)
    assert guard.gave_up


def test_an_overflowing_gradient_is_no_fault_while_the_loss_scale_is_being_found():
    told = []
    guard = StepGuard(max_in_a_row=2, loss_scaling=True, on_skipped=told.append)
    for step in range(LOSS_SCALE_HALVINGS + 1):
        watch(guard, step, norm=math.inf)
        assert not guard.gave_up
    watch(guard, LOSS_SCALE_HALVINGS + 1, norm=math.inf)
    assert guard.gave_up
    assert told == []


def test_a_loss_that_is_not_finite_is_a_fault_with_loss_scaling_too():
    guard = StepGuard(max_in_a_row=1, loss_scaling=True)
    watch(guard, 0, loss=math.nan)
    assert guard.gave_up


def test_any_workers_wish_to_stop_is_remembered():
    guard = StepGuard()
    watch(guard, 0)
    assert not guard.stop_requested
    watch(guard, 1, stop=1.0)
    watch(guard, 2)
    assert guard.stop_requested


def test_broken_videos_are_added_up_over_steps_those_of_skipped_ones_too():
    guard = StepGuard(max_in_a_row=3)
    watch(guard, 0, broken=2.0)
    watch(guard, 1, broken=3.0, loss=math.nan)
    guard.check_pending()
    assert guard.broken_videos == 5
