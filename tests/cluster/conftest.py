"""A cluster on hosts of this machine; tests of it are skipped where it can't have hosts."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # lets tests import `hosts` and `lab` by their names

from hosts import why_not
from lab import Cluster, running_cluster, timed
from runs import STEPS, Run, prepare_videos, submit_training


@pytest.fixture(scope="session")
def several_hosts() -> None:
    """Skip where this machine can't have them."""
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(several_hosts: None) -> Iterator[Cluster]:
    """A head that computes nothing, two hosts that train, one that decodes, and a laptop."""
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def videos(cluster: Cluster) -> None:
    with timed("the demo's videos"):
        prepare_videos(cluster.hosts, "head", "~/morphmlp")


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, videos: None) -> Run:
    """The run that all others are held against."""
    with timed(f"the demo's training, {STEPS} steps"):
        run = submit_training(cluster, "undisturbed")
        run.watch_until_end(limit_s=400)
    return run
