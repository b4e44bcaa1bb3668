"""Autocast on whichever device a tensor is, also on those that have none (meta)."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def is_on(x: Tensor) -> bool:
    """Whether layers take this tensor in 16 bit now."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def switched_off(x: Tensor) -> AbstractContextManager[object]:
    """Where layers take this tensor as it is."""
    return torch.autocast(x.device.type, enabled=False) if is_on(x) else nullcontext()
