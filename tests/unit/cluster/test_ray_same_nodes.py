"""Machines with other code or another time are refused, each in a line that says in what it differs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from morphmlp.cluster.ray_same_nodes import clock_fault, code_fault, shipped_code

ROOT = Path(__file__).parents[3]
OLD = "A_TEXT_OF_AN_OLDER_VERSION = True\n"


@pytest.mark.parametrize(
    ("there", "fault"),
    [
        ({"a.py": "1", "b.py": "2"}, None),
        ({"a.py": "1", "b.py": "3"}, "runs other code than this command: b.py of morphmlp differ; submit with"),
        ({"a.py": "1"}, ": b.py of morphmlp differ;"),
        (
            {"a.py": "0", "b.py": "0", "c.py": "0", "d.py": "0", "e.py": "0"},
            ": a.py, b.py, c.py and 2 more of morphmlp",
        ),
        ({}, "node n (10.0.0.2) has no package morphmlp"),
    ],
)
def test_a_machine_with_other_files_is_named_with_them(there: dict[str, str], fault: str | None):
    found = code_fault("n (10.0.0.2)", {"a.py": "1", "b.py": "2"}, there)
    assert (found is None) if fault is None else (found is not None and fault in found and "n (10.0.0.2)" in found)


@pytest.mark.parametrize(
    ("at", "fault"),
    [
        (100.0, None),
        (115.0, None),  # the answer came at 105
        (115.5, "its clock is 10 s ahead of"),
        (705.0, "node n: its clock is 600 s ahead of this machine's, more than 10 s; set it"),
        (90.0, None),
        (40.0, "its clock is 60 s behind this machine's"),
    ],
)
def test_a_clock_is_off_by_what_the_way_of_the_question_cannot_explain(at: float, fault: str | None):
    found = clock_fault("n", at, sent=100.0, received=105.0)
    assert (found is None) if fault is None else (found is not None and fault in found)


def test_what_a_job_has_brought_is_not_shipped_again(monkeypatch: pytest.MonkeyPatch):
    assert shipped_code()["working_dir"] == str(ROOT)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"env_vars": {"PYTHONPATH": "/x"}}}))
    assert shipped_code()["env_vars"]["PYTHONPATH"].split(":")[-1] == "/x"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"working_dir": "gcs://a.zip"}}))
    assert shipped_code() == {}


OLD_NODES = """
import os, subprocess, sys
from ray.cluster_utils import Cluster
from morphmlp.drill.ray_nodes import add_node

cluster = Cluster()
for cpus in (0, 1):
    add_node(cluster, num_cpus=cpus)
environment = {**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": sys.argv[1]}
for how in ("shipped", "not-shipped"):
    subprocess.run([sys.executable, "command.py", how], env=environment, check=True)
cluster.shutdown()
"""
COMMAND = """
import sys
from morphmlp.cluster import ray_cluster, ray_same_nodes
from morphmlp.cluster.ray_nodes import ask_nodes, cluster_nodes
from morphmlp.errors import ClusterError
import ray, beside_the_command

if sys.argv[1] == "not-shipped":
    ray_cluster.shipped_code = dict

def seen(_):
    import beside_the_command
    from morphmlp import errors
    return beside_the_command.VALUE, hasattr(errors, "A_TEXT_OF_AN_OLDER_VERSION")

try:
    with ray_cluster.job_session():
        ray_same_nodes.require_same_nodes()
        print(sys.argv[1], [answer for _, answer in ask_nodes(seen, dict.fromkeys(cluster_nodes()), doing=str)])
except ClusterError as error:
    print(*(f"{sys.argv[1]} {line}" for line in str(error).splitlines()), sep="\\n")
"""


@pytest.mark.slow
def test_nodes_with_older_code_run_the_commands_or_are_refused(tmp_path: Path):
    shutil.copytree(ROOT / "morphmlp", tmp_path / "old/morphmlp", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "old/morphmlp/errors.py").open("a") as errors:
        errors.write(OLD)
    (tmp_path / "old_nodes.py").write_text(OLD_NODES)
    (tmp_path / "command.py").write_text(COMMAND)
    (tmp_path / "beside_the_command.py").write_text("VALUE = 7")
    with tempfile.TemporaryDirectory(prefix="mmlp-") as folder:
        done = subprocess.run(
            [sys.executable, "old_nodes.py", str(ROOT)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "old"), "RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    shipped, *refused = done.stdout.splitlines()
    assert shipped == "shipped [(7, False), (7, False)]"
    assert len(refused) == 2
    assert all("runs other code than this command: errors.py of morphmlp differ" in line for line in refused)
