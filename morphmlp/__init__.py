"""MorphMLP video models: training and measuring them on a Ray cluster.

The package is a library too: `from morphmlp.models import build_model` gives the network alone and
imports neither Ray nor MLflow.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("morphmlp")
except PackageNotFoundError:  # a copy that isn't installed, as in torch.hub's folder or next to an exported model
    __version__ = "not installed"
