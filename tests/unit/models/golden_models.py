"""Networks whose every tensor is filled from its name, as those were that gave tests/golden/morphmlp_forward.json.

Not a test module, so that several can import it; conftest.py puts it on their path.
"""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from morphmlp.models import MorphMLP, build_model

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "morphmlp_forward.json").read_text())


def hash_values(name: str, count: int) -> npt.NDArray[np.float64]:
    """Values in [-1, 1) from an integer hash of a tensor's name and the flat index, modulo 2^32."""
    x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761)
    x += np.uint32(zlib.crc32(name.encode()))
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x45D9F3B)
    x ^= x >> np.uint32(16)
    return x / 2.0**31 - 1.0


@cache
def golden_tensor(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    values = hash_values(name, int(np.prod(shape)))
    if name == "input":
        pass
    elif len(shape) >= 2:
        values *= np.sqrt(3 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        values = 1 + 0.5 * values
    elif name.endswith("weight"):
        values = 1 + 0.1 * values
    else:
        values *= 0.1
    return torch.from_numpy(values.reshape(shape)).to(dtype)


def golden_model(name: str, dtype: torch.dtype = torch.float32) -> MorphMLP:
    with torch.device("meta"):
        model = build_model(name)
    state = {
        key: torch.tensor(0) if key.endswith("num_batches_tracked") else golden_tensor(key, tuple(value.shape), dtype)
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval()


def golden_input(model: MorphMLP, dtype: torch.dtype = torch.float32) -> Tensor:
    return golden_tensor("input", (1, *model.input_shape), dtype)
