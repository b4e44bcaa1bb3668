"""Processes of Ray that decoding needs, asked for before there is something to decode: each takes seconds to start."""

from importlib import import_module

import ray

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config.operation import IngestConfig


def warm_decode_processes(placement: Placement, ingest: IngestConfig) -> None:
    """Let Ray start decode processes, and these their decoders, while the caller does something else."""
    warm = _prepare_to_decode.options(
        label_selector=dict(placement.ingest_labels) or None,
        scheduling_strategy="DEFAULT",  # not in the places of a sweep's trial, which have no CPU for it
    )
    for _ in range(placement.ingest_cpus):
        warm.remote(placement, ingest)


@ray.remote(num_cpus=1, max_retries=0)  # a warm-up that fails isn't worth a second try
def _prepare_to_decode(placement: Placement, ingest: IngestConfig) -> None:
    import_module("ray.data")
    policy = placement.ingest_share(ingest, pipelines=1).policy
    policy.opener(policy.decoder).start()


def keep_statistics_here() -> None:
    """Let the process of Ray Data's statistics be on this node: it outlives the run, and one with it never idles.

    It starts where the cluster's first dataset is read: on a node that came for the run it would keep that for good.
    """
    from ray.data._internal.stats import get_or_create_stats_actor  # noqa: PLC0415 (Ray Data, a second)

    get_or_create_stats_actor()
