"""Where kernels in Triton can't run, one line says so."""

import importlib.util

import pytest
import torch

from morphmlp.errors import ConfigError
from morphmlp.models.fused import support
from morphmlp.models.fused.support import require_triton


def test_without_a_gpu_the_field_is_named(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ConfigError, match=r"^execution\.kernels: triton needs GPUs, and a worker computes on cpu;"):
        require_triton(torch.device("cpu"))


def test_without_triton_the_package_is_named(monkeypatch):
    monkeypatch.setattr(support, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^execution\.kernels: triton needs the package triton on the workers"):
        require_triton(torch.device("cuda"))


def test_its_interpreter_will_do_for_tests():
    assert importlib.util.find_spec("triton")
    require_triton(torch.device("cpu"))
