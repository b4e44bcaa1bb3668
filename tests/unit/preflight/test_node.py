"""What a node says of itself, held to what the system's own commands say."""

import os
import resource
import subprocess
import sys

import pytest
import torch

from morphmlp.preflight.node import disk_at, node_facts
from morphmlp.preflight.report import RAY


def test_facts_are_those_of_this_machine(tmp_path):
    facts = node_facts({"cluster.storage": str(tmp_path / "not" / "there")})
    assert (
        facts.versions["torch"] == torch.__version__.partition("+")[0] or facts.versions["torch"] == torch.__version__
    )
    assert facts.versions["CUDA"] == (torch.version.cuda or "none")
    assert facts.versions["python"] == sys.version.split()[0]
    assert facts.open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert set(facts.disks) == {"cluster.storage", RAY}
    told = subprocess.run(["df", "-B1", "--output=size", tmp_path], capture_output=True, text=True, check=True)
    assert facts.disks["cluster.storage"].total_bytes == int(told.stdout.split()[1])
    assert facts.disks["cluster.storage"].path == str(tmp_path)


def test_free_space_is_what_a_user_may_still_write(tmp_path):
    stat = os.statvfs(tmp_path)
    assert abs(disk_at(str(tmp_path)).free_bytes - stat.f_bavail * stat.f_frsize) < 2**30


@pytest.mark.parametrize(
    ("shown", "names", "size"),
    [
        ("580.1, 81559, H100 80GB\\n580.1, 46068, NVIDIA L40S\\n", ("H100 80GB", "NVIDIA L40S"), 46068),
        ("580.1, [N/A], NVIDIA GB10\\n", ("NVIDIA GB10",), 0),
        ("No devices were found\\n", (), 0),
    ],
)
def test_gpus_are_those_that_the_driver_shows(shown, names, size, tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{shown}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = node_facts({})
    assert facts.versions["driver"] == ("580.1" if names else "none")
    assert (facts.gpus, facts.gpu_bytes) == (names, size * 2**20)


def test_facts_are_found_without_torch():
    code = (
        "import sys, morphmlp.preflight.node as node; node.node_facts({}); print({'torch', 'ray'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["set()"]
