"""Kernels as a GPU gets them: Triton builds them for one that isn't there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED_MEMORY = 227 * 1024
"""Of a program at most, on GPUs of compute capability 9.0 (H100, H200)."""


@pytest.mark.long
def test_kernels_of_a_large_block_fit_the_shared_memory_of_an_h200(tmp_path):
    script = Path(__file__).with_name("built_kernels.py")
    root = Path(__file__).parents[4]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(root), "TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run(
        [sys.executable, script, "112", "14"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout.splitlines()[-1])
    assert {name for name, _ in built} >= {
        "linear_kernel",
        "weight_gradient_kernel",
        "norm_kernel",
        "norm_gradient_kernel",
        "channel_unit_kernel",
        "channel_unit_input_gradient_kernel",
        "channel_unit_weight_gradient_kernel",
    }
    assert max(shared for _, shared in built) <= SHARED_MEMORY
