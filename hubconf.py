"""Entry points of torch.hub: each published variant by its name, and `create_model`.

    torch.hub.load("<this repository>", "morphmlp_s_16x4", source="local", num_classes=8, pretrained_weights="w.pth")

Arguments are those of `morphmlp.pretrained.create.create_model`.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from morphmlp.models.presets import model_names
from morphmlp.pretrained.create import create_model

dependencies = ["torch", "einops", "jaxtyping", "safetensors", "pydantic", "yaml"]

__all__ = ["create_model", "dependencies", *model_names()]  # noqa: PLE0604 (the variants' names, below)


def _entry(name: str) -> Callable[..., nn.Module]:
    def build(**options: Any) -> nn.Module:
        return create_model(name, **options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"The variant {name}.\n\n{create_model.__doc__}"
    return build


globals().update({name: _entry(name) for name in model_names()})
