"""Proof that an exported model gives what the network gives, on inputs that anybody can draw again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue
from torch import Tensor

from morphmlp.errors import ExportError
from morphmlp.export.forms import Run
from morphmlp.models.network import Network
from morphmlp.tasks.task import network_input

MOST_DIFFERENCE = 1e-4
"""Of logits; a model that differs more isn't handed over."""
BATCH_SIZES = (1, 3)
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported model is from the network."""

    differences: dict[str, float]
    """Greatest absolute difference of a logit, by what was put in."""
    largest_logit: float
    """Greatest absolute logit of the network, to see the differences next to."""
    seed: int = SEED
    limit: float = MOST_DIFFERENCE

    @property
    def greatest(self) -> float:
        """Of all differences."""
        return max(self.differences.values())

    def as_json(self) -> dict[str, JsonValue]:
        """For the file next to the model."""
        return asdict(self)

    def require(self, form: str) -> None:
        """Refuse a model that isn't the network.

        Raises:
            ExportError: It differs by more than the limit, or gives numbers that aren't finite.
        """
        if not self.greatest <= self.limit:
            worst = max(self.differences, key=lambda name: self.differences[name])
            raise ExportError(
                f"--to {form}: the exported model isn't the network: logits differ by {self.greatest:.1e} "
                f"({worst}), at most {self.limit:g} is allowed; nothing was written"
            )


def seeded_pixels(count: int, *, size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Pixels `[count, *size, 3]` by numpy's `default_rng(SEED)`."""
    return np.random.default_rng(SEED).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def seeded_inputs(network: Network, *, sizes: Sequence[tuple[int, int, int]]) -> dict[str, Tensor]:
    """What both are given: of the first size (frames, rows, columns) one and three, of the others one."""
    wanted = {f"batch {count}": (count, sizes[0]) for count in BATCH_SIZES}
    wanted |= {f"batch 1, {size[1]}x{size[2]}": (1, size) for size in sizes[1:]}
    device = torch.device("cpu")
    return {
        name: network_input(torch.from_numpy(seeded_pixels(count, size=size)), network, device)
        for name, (count, size) in wanted.items()
    }


def compare(network: Network, exported: Run, inputs: dict[str, Tensor]) -> Parity:
    """Both on the same inputs, in fp32 on the CPU."""
    differences, largest = {}, 0.0
    for name, batch in inputs.items():
        with torch.inference_mode():
            right, found = network(batch), exported(batch)
        if right.shape != found.shape:
            raise ExportError(
                f"the exported model gives {list(found.shape)} for {name}, the network {list(right.shape)}"
            )
        differences[name] = float((right - found).abs().max())
        largest = max(largest, float(right.abs().max()))
    return Parity(differences=differences, largest_logit=largest)
