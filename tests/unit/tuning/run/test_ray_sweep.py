"""How trials that run at the same time share a cluster, and which of them belong together."""

from types import SimpleNamespace

import pytest

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config.sweep import Asha
from morphmlp.errors import ClusterError
from morphmlp.tuning.run.ray_sweep import _scheduler, share


def placement(**changes):
    fields = {"num_workers": 2, "device": "cpu", "cpus_per_worker": 1, "ingest_cpus": 2, **changes}
    return Placement(min_workers=fields["num_workers"], max_workers=fields["num_workers"], on_cluster=False, **fields)


def test_one_trial_keeps_what_was_placed():
    assert share(placement(), trials=1, cpus=4, gpus=0) == placement()


def test_decode_cpus_are_divided_between_trials():
    assert share(placement(ingest_cpus=30), trials=3, cpus=36, gpus=0).ingest_cpus == 10


def test_trials_that_would_starve_each_other_are_refused_with_the_arithmetic():
    with pytest.raises(ClusterError, match=r"3 trials of 2 workers need 12 CPUs .* there are 11"):
        share(placement(), trials=3, cpus=11, gpus=0)


def test_trials_share_no_gpus():
    with pytest.raises(ClusterError, match="2 trials of 2 workers need 4 GPUs, there are 2"):
        share(placement(device="cuda"), trials=2, cpus=64, gpus=2)


def test_a_sweeps_scheduler_knows_which_trials_are_seeds_of_one_point():
    queue = SimpleNamespace(entries=[SimpleNamespace(point=SimpleNamespace(key=key)) for key in "aabb"])
    train, execution = SimpleNamespace(length=9, unit="epoch"), SimpleNamespace(validate_every_steps=None)
    config = SimpleNamespace(task="classification", train=train, execution=execution)
    sweep = SimpleNamespace(search=SimpleNamespace(kind="grid"), scheduler=Asha(kind="asha"))
    scheduler = _scheduler(sweep, SimpleNamespace(points=[SimpleNamespace(config=config)]), None, queue)
    scheduler.on_score(1, 1, 50.0)
    assert scheduler.on_score(3, 1, 40.0) is not None
    assert scheduler.given_up(4) is not None
    assert scheduler.given_up(2) is None
