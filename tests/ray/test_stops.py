"""Runs on a real local Ray that are stopped on request, or don't get their workers."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.errors import ClusterError, RunStoppedError
from morphmlp.experiment.data_splits import read_splits
from morphmlp.experiment.ray_experiment import run_experiment
from morphmlp.tracking import find_run, tracking_uri

MakeConfig = Callable[..., ExperimentConfig]


class Silent:
    """Progress that nobody watches."""

    def phase(self, title: str, *, total: int, unit: str) -> None:
        pass

    def update(self, done: int, note: str = "") -> None:
        pass

    def line(self, text: str) -> None:
        pass


def steps_of(run: Path) -> list[int]:
    path = run / "progress.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["progress"]["step"] for line in lines if line.get("progress")]


@pytest.mark.long
def test_all_workers_stop_after_the_same_step_and_none_is_repeated(
    make_config: MakeConfig, placement: Placement
) -> None:
    config = make_config(train__epochs=10, checkpoint__every_epochs=None, checkpoint__every_minutes=None)
    run = Path(config.cluster.storage) / "asked-to-stop"

    def ask_after_a_few_steps() -> None:
        while len(steps_of(run)) < 8:
            time.sleep(0.05)
        (run / "stop-requested").write_text("maintenance")

    threading.Thread(target=ask_after_a_few_steps, daemon=True).start()
    with pytest.raises(RunStoppedError, match="stop-requested"):
        run_experiment(config, read_splits(config), placement, run_name="asked-to-stop", progress=Silent())
    stopped = find_run(tracking_uri(), run_name="asked-to-stop")
    assert stopped is not None
    assert stopped.status == "KILLED"
    assert 8 <= steps_of(run)[-1] < 10 * 6

    run_experiment(config, read_splits(config), placement, run_name="asked-to-stop", progress=Silent())
    assert steps_of(run) == list(range(1, 10 * 6 + 1))


@pytest.fixture
def _cpus_held_by_another(placement: Placement) -> Iterator[None]:
    """All but one of the session's CPUs."""
    total = int(ray.cluster_resources()["CPU"])
    held = placement_group([{"CPU": total - 1}])
    ray.get(held.ready())
    yield
    remove_placement_group(held)


@pytest.mark.slow
@pytest.mark.usefixtures("_cpus_held_by_another")
def test_a_run_that_gets_no_workers_says_what_it_lacks(
    make_config: MakeConfig, placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "2")
    monkeypatch.setattr("morphmlp.training.workers.ray_capacity.START_WAIT_S", 2.0)
    config = make_config(cluster__wait_for_workers_s=4.0)
    with pytest.raises(ClusterError, match=r"no workers for \d+ s: .*2 .*; the same command continues"):
        run_experiment(config, read_splits(config), placement, run_name="no-workers", progress=Silent())
