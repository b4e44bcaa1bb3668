"""The two loops that are compared do the same work."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from morphmlp.benchmarks.checkpoint_stall import measure_stall, stall_config
from morphmlp.benchmarks.step_loop import plain_steps, prepared_state, run_steps, timed_round
from morphmlp.config import load_config

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
CONFIG = load_config(
    Path(__file__).parents[1] / "small_experiment.yaml",
    {
        "model.depths": [1, 1, 1, 1],
        "model.embed_dims": [16, 16, 16, 16],
        "model.drop_path_rate": 0.0,
        "clip.num_frames": 2,
        "optim.lr": 1e-3,
        "optim.min_lr": 1e-3,
        "train.global_batch_size": 2,
        "train.micro_batch_size": 2,
    },
)


def test_both_loops_take_the_same_steps():
    run = list(islice(run_steps(CONFIG, prepared_state(CONFIG, CPU), device=CPU), 20))
    plain = list(islice(plain_steps(CONFIG, device=CPU), 20))
    assert all(step.totals.clips == 4 for step in run)
    losses = [step.totals.loss_sum.item() for step in run]
    assert [loss.item() for loss in plain] == pytest.approx(losses, rel=1e-3)
    assert losses[-1] < 0.9 * losses[0]


def test_a_round_takes_so_many_steps_and_what_follows_them():
    numbers = iter(range(10))
    taken = []
    assert timed_round(numbers, 3, after=taken.extend) >= 0
    assert (taken, next(numbers)) == ([0, 1, 2], 3)


def test_a_checkpoint_is_written_while_steps_go_on_and_nothing_stays(tmp_path):
    result = measure_stall(CONFIG, device=CPU, storage=tmp_path / "here", rounds=2, plain=1)
    assert list((tmp_path / "here").iterdir()) == []
    weights = sum(value.numel() for value in prepared_state(CONFIG, CPU).model.parameters())
    assert result.written_bytes > 3 * 4 * weights  # and both moments
    assert result.standstill_s > 0
    assert result.write_s > 0
    assert result.standstill_steps == pytest.approx(result.standstill_s / result.step_s)
    assert result.stall_steps == pytest.approx(result.stall_s / result.step_s)
    assert (result.rounds, result.clips_per_step, result.device) == (2, 4, "cpu")


@pytest.mark.parametrize(("preset", "blocks"), [("s", 19), ("b", 29)])
def test_the_models_of_the_presets_are_the_published_ones(preset, blocks, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = stall_config(preset, clips=2)
    assert sum(config.model.depths) == blocks
    assert (config.clip.num_frames, config.clip.crop_size) == (16, 224)
    assert (config.train.global_batch_size, config.train.micro_batches_per_step, config.augment.repeats) == (2, 1, 1)
