"""Tests that need a GPU: `make test-gpu` runs them. They aren't skipped: without one they fail, and say why."""

import sys
from pathlib import Path

import pytest
import torch

UNIT = Path(__file__).parents[1] / "unit"
sys.path[:0] = [str(UNIT / "training"), str(UNIT / "models")]


@pytest.fixture(scope="session")
def gpu():
    if not torch.cuda.is_available():
        pytest.fail("these tests need a GPU that torch can use", pytrace=False)
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def exact_arithmetic():
    """Single precision as a CPU has it: without TF32, which rounds the inputs of convolutions to 11 bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
