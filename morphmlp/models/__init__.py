"""The MorphMLP network, its published variants, and what they cost.

Example:
    >>> model = build_model("morphmlp_s_16x4")
    >>> logits = model(clips)
    >>> maps = model.forward_features(clips)

The names below are imported when they are first used: sizes, presets and what networks cost need no torch, which takes
seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from morphmlp.models.presets import model_names

if TYPE_CHECKING:
    from morphmlp.models.backbone import MorphMLP
    from morphmlp.models.build import build_model

__all__ = ["MorphMLP", "build_model", "model_names"]

_LATER = {"MorphMLP": "morphmlp.models.backbone", "build_model": "morphmlp.models.build"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
