"""A measured latency is one of the network that is meant."""

from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.tuning.space import latency
from morphmlp.tuning.space.fitting import Sizes

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"


def test_the_latency_is_the_median_of_passes_after_warming_up(monkeypatch):
    ticks = iter([0.0, 9.0] * latency.WARM_UP + [0.0, 0.001, 0.0, 0.002, 0.0, 0.003, 0.0, 0.004, 0.0, 5.0])
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(ticks))
    assert latency.measured_latency_ms(Sizes.of(load_config(SMALL))) == pytest.approx(3.0)
