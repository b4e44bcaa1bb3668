"""Processes of Ray that decoding needs, asked for before there is something to decode: each takes seconds to start."""

from importlib import import_module
from typing import TYPE_CHECKING

import ray

if TYPE_CHECKING:
    from morphmlp.data.stream.decode_task import DecodePolicy
    from morphmlp.data.stream.ray_dataset import IngestShare


def warm_decode_processes(share: "IngestShare") -> None:
    """Let Ray start decode processes, and these their decoders, while the caller does something else."""
    warm = _prepare_to_decode.options(label_selector=share.node_labels or None)
    for _ in range(share.cpus):
        warm.remote(share.policy)


@ray.remote(num_cpus=1, max_retries=0)  # a warm-up that fails isn't worth a second try
def _prepare_to_decode(policy: "DecodePolicy") -> None:
    import_module("ray.data")
    policy.opener(policy.decoder).start()


def keep_statistics_here() -> None:
    """Let the process of Ray Data's statistics be on this node: it outlives the run, and one with it never idles.

    It starts where the cluster's first dataset is read: on a node that came for the run it would keep that for good.
    """
    from ray.data._internal.stats import get_or_create_stats_actor  # noqa: PLC0415 (Ray Data, a second)

    get_or_create_stats_actor()
