"""Every machine of a cluster runs this machine's code, at its time: the code is shipped, and both are asked for.

docs/decisions/0023 says why.
"""

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morphmlp.cluster.ray_nodes import SUBMITTED, ask_nodes, cluster_nodes
from morphmlp.environment import blob_reader, package_blobs
from morphmlp.errors import ClusterError

MOST_SKEW_S = 10.0
"""Seconds by which a machine's clock may differ: the record's times, and what is younger than what, come of several."""
_FILES_NAMED = 3


def shipped_code() -> dict[str, Any]:
    """Ray's runtime environment that brings this package to every process of the run, also on nodes that come later.

    Nothing of it where `ray job submit --working-dir` has brought the code. The folders in which Python looks for the
    command's own modules stay known to the nodes, as without a runtime environment.
    """
    submitted = json.loads(os.environ.get(SUBMITTED) or "{}").get("runtime_env") or {}
    if "working_dir" in submitted:
        return {}
    package = Path(__file__).parents[1]
    own = [str(Path(sys.argv[0]).resolve().parent), str(Path.cwd())]
    others = [(submitted.get("env_vars") or {}).get("PYTHONPATH")]
    return {
        "working_dir": str(package.parent),
        # Ray's patterns know no exceptions; so all but the package is named.
        "excludes": [
            "/" + re.sub(r"([^\w./-])", r"\\\1", other.name) for other in package.parent.iterdir() if other != package
        ],
        # Ray puts the working directory before these.
        "env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, [*own, *others]))},
    }


def require_same_nodes() -> None:
    """Make sure that all machines of the cluster have this package's code, and about this machine's time.

    Raises:
        ClusterError: A line for each that differs, with the files, or with the seconds.
    """
    nodes = cluster_nodes()
    if len(nodes) < 2:
        return
    here = package_blobs()
    seen = ask_nodes(blob_reader(), dict.fromkeys(nodes, "morphmlp"), doing=lambda _: "read its code")
    if other := [fault for node, there in seen if (fault := code_fault(node.name, here, there)) is not None]:
        raise ClusterError("\n".join(other))
    # Asked once more: a process that had to start would make the time between question and answer long.
    sent = time.time()
    times = ask_nodes(_clock, {node: None for node, _ in seen}, doing=lambda _: "read its clock")
    received = time.time()
    skewed = [
        fault for node, at in times if (fault := clock_fault(node.name, at, sent=sent, received=received)) is not None
    ]
    if skewed:
        raise ClusterError("\n".join(skewed))


def code_fault(node: str, here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """In which files a machine's package differs; None: in none."""
    files = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if not files:
        return None
    if not there:
        return f"node {node} has no package morphmlp, and none was shipped; submit with `--working-dir .`"
    more = f" and {len(files) - _FILES_NAMED} more" if len(files) > _FILES_NAMED else ""
    return (
        f"node {node} runs other code than this command: {', '.join(files[:_FILES_NAMED])}{more} of morphmlp "
        "differ; submit with `ray job submit --working-dir .` from the repository's root, or bring the nodes up to date"
    )


def clock_fault(node: str, at: float, *, sent: float, received: float) -> str | None:
    """By how much a machine's clock is off, where that is too much; it was read between two times of this one's."""
    skew = at - received if at > received else min(at - sent, 0.0)
    if abs(skew) <= MOST_SKEW_S:
        return None
    side = "ahead of" if skew > 0 else "behind"
    return (
        f"node {node}: its clock is {abs(skew):.0f} s {side} this machine's, more than {MOST_SKEW_S:.0f} s; "
        "set it (chrony or systemd-timesyncd on every node), and start Ray there again"
    )


def _clock(_: None) -> float:
    return time.time()
