"""A small Ray cluster on this machine whose nodes come and go by word; a program of its own.

    python -m morphmlp.drill.ray_nodes      `add NAME` and `remove NAME` on standard input, one JSON line for each

The head decodes and takes no training worker; every other node holds one. The first answer is the cluster's address.
RAY_TMPDIR names the folder of its sockets. The end of standard input ends the cluster.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import morphmlp.cluster.ray_cluster  # noqa: F401 (sets Ray's environment before Ray is imported)

from ray.cluster_utils import Cluster  # isort: skip

INGEST_LABELS = {"node-role": "ingest"}
DECODE_CPUS = 2


def main() -> None:
    """Serve until the input ends."""
    cluster = Cluster()
    nodes: dict[str, Any] = {}
    add_node(cluster, num_cpus=DECODE_CPUS, labels=INGEST_LABELS, include_dashboard=False)
    _answer(address=cluster.address)
    for line in sys.stdin:
        word, name = line.split()
        if word == "add":
            nodes[name] = add_node(cluster, num_cpus=1, labels={"node-role": "train"})
        else:
            # As a machine goes: without a word to anybody.
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
        _answer(nodes=sorted(nodes))
    cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped


def add_node(cluster: Cluster, **options: Any) -> Any:
    """A further node, with a folder of its own below RAY_TMPDIR, as machines have.

    Where nodes shared one, a new node would unpack the code that a run ships over what others import at that moment.
    """
    folder = Path(os.environ["RAY_TMPDIR"]) / "ray"  # the name that Ray itself adds
    folder.mkdir(parents=True, exist_ok=True)
    return cluster.add_node(temp_dir=str(folder / str(len(list(folder.iterdir())))), **options)


def _answer(**content: object) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main()
