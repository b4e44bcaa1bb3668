"""Whether kernels in Triton can run here."""

import os
from importlib.util import find_spec

import torch

from morphmlp.errors import ConfigError


def require_triton(device: torch.device) -> None:
    """Make sure of it before a network is made to need them.

    Raises:
        ConfigError: Triton isn't installed, or the device is no GPU (and Triton's interpreter isn't asked for).
    """
    if find_spec("triton") is None:
        fault = "needs the package triton on the workers, which torch brings on Linux, and it isn't there"
    elif device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        fault = f"needs GPUs, and a worker computes on {device}"
    else:
        return
    raise ConfigError([f"execution.kernels: triton {fault}; leave execution.kernels at torch"])
