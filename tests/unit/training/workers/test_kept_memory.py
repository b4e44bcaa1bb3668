"""Memory that a worker on CPUs keeps: maps of one step lie where those of the step before lay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.training.workers.kept_memory import KEPT, memory_settings

DEMO = Path(__file__).parents[4] / "experiments/demo/morphmlp_demo.yaml"
TAKE_AND_FREE = """
import ctypes, resource, threading
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
faults = []
def steps():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        maps = [libc.malloc(64 << 20) for _ in range(2)]
        for place in maps:
            ctypes.memset(place, 1, 64 << 20)
        for place in maps:
            libc.free(place)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=steps)
thread.start()
thread.join()
print(faults[-1])
"""
"""As Ray Train does: not in the main thread."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for glibc")
@pytest.mark.parametrize(("settings", "fresh_pages"), [({}, True), (KEPT, False)], ids=["as it is", "kept"])
def test_a_threads_large_maps_are_fresh_at_every_step_but_with_the_settings(settings, fresh_pages):
    environment = {name: value for name, value in os.environ.items() if name not in KEPT} | dict(settings)
    found = subprocess.run([sys.executable, "-c", TAKE_AND_FREE], env=environment, capture_output=True, check=True)
    assert (int(found.stdout) > 16) is fresh_pages


@pytest.mark.parametrize(("videos", "device", "kept"), [(1024, "cpu", True), (1024, "cuda", False), (8, "cpu", False)])
def test_workers_on_cpus_with_large_maps_keep_them(videos, device, kept):
    config = load_config(DEMO, {"train.global_batch_size": videos, "train.micro_batch_size": videos // 2})
    assert memory_settings(config, device) == (dict(KEPT) if kept else {})
