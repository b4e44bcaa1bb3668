"""MorphMLP video models: training and measuring them on a Ray cluster.

The package is a library too: `from morphmlp.models import build_model` gives the network alone and
imports neither Ray nor MLflow.
"""

from importlib.metadata import version

__version__ = version("morphmlp")
