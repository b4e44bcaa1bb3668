"""A run's windows against the simulation: steps whose bottleneck is known come out as they were."""

from dataclasses import replace
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.errors import ConfigError
from morphmlp.sizing.check import check_run, compare
from morphmlp.sizing.inputs import work_of
from morphmlp.training.record.accounting import TimeWindow

DEMO = Path(__file__).parents[3] / "experiments" / "demo" / "morphmlp_demo.yaml"
WORK = work_of(load_config(DEMO), videos=640, val_videos=0)  # 16 videos a step in micro-batches of 8, one clip each


def window(step, *, workers, compute_s, wait_s, decode_s):
    return TimeWindow(
        epoch=1, step=step, steps=10, workers=workers, clips=160, wall_s=10, start_s=0, wait_s=10 * wait_s,
        compute_s=10 * compute_s, all_reduce_s=0.1, decode_cpu_s=160 * decode_s,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "cpus", "compute_s", "decode_s", "wait_s"),
    [
        (1, 1, 0.4, 0.01, 0.0),
        (2, 2, 0.2, 0.01, 0.0),
        (1, 1, 0.4, 0.05, 0.39),  # 16 videos take 0.8 s
        (2, 2, 0.2, 0.05, 0.19),  # 8 videos for each worker take 0.4 s
        (1, 2, 0.4, 0.05, 0.0),
    ],
)
def test_a_run_with_a_known_bottleneck_is_met(workers, cpus, compute_s, decode_s, wait_s):
    config = load_config(DEMO, {"ingest.cpus": cpus, "cluster.num_workers": workers})
    windows = [
        window(step, workers=workers, compute_s=compute_s, wait_s=wait_s, decode_s=decode_s) for step in (10, 20, 30)
    ]
    found = compare(config, WORK, windows, name="a run")
    assert found.measured_step_s == pytest.approx(compute_s + wait_s + 0.01)
    assert found.error == pytest.approx(0, abs=0.01)
    assert found.simulated_wait_share == pytest.approx(found.measured_wait_share, abs=0.01)
    assert found.in_words().startswith(f"{workers} worker{'s' if workers > 1 else ''}, 30 steps: ")


def test_what_is_no_such_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no run's folder"):
        check_run(tmp_path)
    one = window(10, workers=1, compute_s=0.4, wait_s=0, decode_s=0.01)
    for windows in ([], [one], [one, replace(one, workers=2)]):
        with pytest.raises(ConfigError, match="needs two reports or more"):
            compare(load_config(DEMO), WORK, windows, name="a run")
