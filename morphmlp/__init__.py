"""MorphMLP video models: training and measuring them on a Ray cluster.

The package is a library too: `morphmlp.create_model("morphmlp_s_16x4")` gives the network alone and imports neither Ray
nor MLflow.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from morphmlp.models.presets import model_names
    from morphmlp.pretrained.create import create_model
    from morphmlp.pretrained.hub import HubMorphMLP, HubMorphMLPSegmentation

__all__ = ["HubMorphMLP", "HubMorphMLPSegmentation", "__version__", "create_model", "model_names"]

try:
    __version__ = version("morphmlp")
except PackageNotFoundError:  # a copy that isn't installed, as in torch.hub's folder or next to an exported model
    __version__ = "not installed"

_LATER = {
    "HubMorphMLP": "morphmlp.pretrained.hub",
    "HubMorphMLPSegmentation": "morphmlp.pretrained.hub",
    "create_model": "morphmlp.pretrained.create",
    "model_names": "morphmlp.models.presets",
}
"""Imported when they are first used: torch takes seconds, and the Hub's package isn't everywhere."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
