"""A moving average of the weights, for validation and test; training never reads it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from morphmlp.errors import CheckpointError


class AveragedWeights:
    """The exponential moving average of a model's parameters, in their precision (fp32) and on their device.

    After every step `average = decay * average + (1 - decay) * weights`, beginning with the weights of the moment,
    without warm-up or bias correction (timm's `ModelEmaV3` has none by default either). So the beginning weighs
    `decay ** steps`: with a decay of 0.999 it takes 4,600 steps to fall below 1 %.

    Only parameters are averaged. BatchNorm's running statistics and other buffers stay the model's own, as in
    `torch.optim.swa_utils.AveragedModel`: they are moving averages already, and averaging them again would mix in their
    initial 0 and 1, which no weights ever had. (timm averages them too.) Frozen parameters have no average either.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._share = 1 - decay
        self._weights = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
        self._averages = {name: parameter.detach().clone() for name, parameter in self._weights.items()}

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew with the model's weights as they are."""
        torch._foreach_copy_(list(self._averages.values()), list(self._weights.values()))

    @torch.no_grad()
    def update(self, moved: Tensor) -> None:
        """Move the average after a step.

        `moved` is a scalar on the model's device: 1 after a step, 0 after a skipped one, which leaves the average as it
        was. It isn't read on the host.
        """
        averages = list(self._averages.values())
        differences = torch._foreach_sub(list(self._weights.values()), averages)
        torch._foreach_mul_(differences, moved * self._share)
        torch._foreach_add_(averages, differences)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights for a while; afterwards it has its own again, bit for bit.

        Nothing is copied: the two exchange their memory. Neither may be saved until then.
        """
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name; the model's own state dict, updated with them, is complete."""
        return dict(self._averages)

    def load_state_dict(self, averages: Mapping[str, Tensor]) -> None:
        """Continue with stored averages.

        Raises:
            CheckpointError: They are those of another model.
        """
        faults = [f"lacks {name}" for name in self._averages.keys() - averages.keys()]
        faults += [f"has {name}, unknown here" for name in averages.keys() - self._averages.keys()]
        faults += [
            f"has {name} of shape {list(averages[name].shape)} instead of {list(average.shape)}"
            for name, average in self._averages.items()
            if name in averages and averages[name].shape != average.shape
        ]
        if faults:
            raise CheckpointError("the averaged weights are of another model: " + "; ".join(sorted(faults)))
        for name, average in self._averages.items():
            average.copy_(averages[name])

    def _exchange(self, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        for name, average in self._averages.items():
            parameters[name].data, average.data = average.data, parameters[name].data
