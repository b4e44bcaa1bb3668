"""One, three (uneven shares) and four workers follow one loss curve; `test_loop` has two."""

from dataclasses import replace

import pytest
import tiny_training as tiny
import torch
from forked_workers import start_workers

STEPS = 50
CONFIG = replace(tiny.CONFIG, train=replace(tiny.CONFIG.train, global_batch_size=8))
RECIPE = tiny.recipe_of(CONFIG, num_videos=40, epochs=10)
BROKEN = frozenset({0, 7})


@pytest.fixture(scope="module")
def alone():
    _, summaries = tiny.train(RECIPE, config=CONFIG, broken=BROKEN, prepare=tiny.hold_biases_before_batch_norm)
    return tiny.losses_of(summaries)


@pytest.mark.parametrize("workers", [pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.long)])
def test_the_loss_curve_does_not_depend_on_the_number_of_workers(workers, alone, tmp_path):
    assert RECIPE.plan.micro_batches_per_step == 4
    assert len(alone) == STEPS
    start_workers(tiny.train_as_worker, workers, str(tmp_path), RECIPE, [BROKEN], count=workers)
    for rank in range(workers):
        assert torch.load(tmp_path / f"case0-worker{rank}.pt")["losses"] == pytest.approx(alone, rel=1e-4)
