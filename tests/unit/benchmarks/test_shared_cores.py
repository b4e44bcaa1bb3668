"""What processes on shared cores cost each other: each process answers rounds; exchanging gradients takes time."""

import io
import json
import sys
from pathlib import Path

import pytest

from morphmlp.benchmarks.shared_cores import exchange, measure_shared_cores, serve
from morphmlp.config import load_config
from morphmlp.config.loading import config_to_mapping

CONFIG = load_config(
    Path(__file__).parents[1] / "small_experiment.yaml",
    {
        "model.depths": [1, 1, 1, 1],
        "model.embed_dims": [16, 16, 16, 16],
        "clip.num_frames": 2,
        "train.global_batch_size": 2,
        "train.micro_batch_size": 2,
    },
)


def test_a_process_answers_rounds_with_seconds_and_cpu_seconds_of_a_step(monkeypatch, capsys):
    order = {"config": config_to_mapping(CONFIG), "meeting": None, "rank": 0, "world": 1}
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{json.dumps(order)}\n2\n1\n"))
    serve()
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 2
    assert all(wall_s > 0 and cpu_s > 0 for wall_s, cpu_s in answers)


@pytest.mark.slow
def test_processes_are_measured_alone_at_once_and_together():
    found = measure_shared_cores(CONFIG, rounds=1, steps=2, processes=2)
    assert (found.processes, found.micro_batch, found.rounds) == (2, 2, 1)
    assert found.step_s > 0
    assert found.contention >= 1
    assert found.exchange_s >= 0
    assert found.exchange_cpu_s >= 0


@pytest.mark.parametrize(("together", "more"), [([9, 1.5, 2.1, 3.9], 0.5), ([9, 1.5, 1.0, 2.0], 0.0)])
def test_an_exchange_is_what_pairs_of_rounds_differ_by_without_the_first(together, more):
    assert exchange({"alone": [1] * 4, "at once": [1, 1, 2, 3], "together": together}) == pytest.approx(more)
