"""All workers' steps in one process: bit for bit those of real workers."""

import pytest
import tiny_training as tiny
import torch
from forked_workers import start_workers

from morphmlp.data.stream.plan import Cursor
from morphmlp.training.replay.one_process import AllWorkersStepper


def take_steps(recipe, steps, *, num_workers, broken=(), prepare=lambda model: None):
    """Train as `num_workers` would; returns the state, and loss and gradient norm of each step."""
    state = tiny.new_state(tiny.CONFIG, tiny.CPU)
    prepare(state.model)
    state.model.train()
    stepper = AllWorkersStepper(state, recipe=recipe, device=tiny.CPU, num_workers=num_workers)
    numbers = []
    for _ in range(steps):
        stepper.take(next(iter(tiny.ListClips(recipe.plan, broken=broken).train(state.cursor))))
        numbers.append((stepper.loss, stepper.grad_norm))
    return state, numbers


def differing(state, weights):
    return [name for name, value in state.model.state_dict().items() if not torch.equal(value, weights[name])]


def test_steps_as_one_worker_are_those_of_the_loop():
    recipe = tiny.recipe_of(max_steps=5)
    run, summaries = tiny.train(recipe)
    state, numbers = take_steps(recipe, 5, num_workers=1)
    assert differing(state, run.model.state_dict()) == []
    assert state.cursor == run.cursor
    assert [loss for loss, _ in numbers] == pytest.approx(tiny.losses_of(summaries), rel=1e-6)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """What two real workers wrote: weights and gradient norms of every case."""
    folder = tmp_path_factory.mktemp("workers")
    recipe = tiny.recipe_of(max_steps=4)
    broken = first_micro_batch(recipe)
    start_workers(tiny.train_as_worker, 2, str(folder), recipe, [set(), broken], count=2)
    return [torch.load(folder / f"case{case}-worker0.pt", weights_only=False) for case in (0, 1)]


def first_micro_batch(recipe):
    plan = next(recipe.plan.micro_batches(Cursor(), worker=0, num_workers=1))
    return set(plan.rows.tolist())


@pytest.mark.parametrize("case", [0, 1], ids=["whole", "with a micro-batch of broken videos"])
def test_steps_as_two_workers_are_those_of_two_processes(two_workers, case):
    recipe = tiny.recipe_of(max_steps=4)
    broken = first_micro_batch(recipe) if case else set()
    run = two_workers[case]
    state, numbers = take_steps(recipe, 4, num_workers=2, broken=broken, prepare=tiny.hold_biases_before_batch_norm)
    assert differing(state, run["model"]) == []
    assert [norm for _, norm in numbers] == run["grad_norms"]
    alone, _ = take_steps(recipe, 4, num_workers=1, broken=broken, prepare=tiny.hold_biases_before_batch_norm)
    assert differing(alone, run["model"]) != []  # so the order of summation does show


def test_each_micro_batch_shows_its_own_gradient():
    recipe = tiny.recipe_of()
    state = tiny.new_state(tiny.CONFIG, tiny.CPU)
    state.model.train()
    seen = []

    def see(batch, loss_sum):
        seen.append((batch.plan.index, loss_sum.item(), state.model.head.weight.grad.clone()))

    stepper = AllWorkersStepper(state, recipe=recipe, device=tiny.CPU, num_workers=2, on_micro_batch=see)
    batches = next(iter(tiny.ListClips(recipe.plan).train(Cursor())))
    stepper.take(batches)
    assert [index for index, _, _ in seen] == [0, 2, 1]  # worker after worker
    assert stepper.loss == pytest.approx(sum(loss for _, loss, _ in seen) / 12, rel=1e-5)
    scale = min(recipe.optim.clip_norm / (stepper.grad_norm + 1e-6), 1.0)
    assert torch.allclose(state.model.head.weight.grad, sum(gradient for _, _, gradient in seen) * scale, atol=1e-7)
    assert not torch.equal(seen[0][2], seen[1][2])
