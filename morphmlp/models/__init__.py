"""The MorphMLP network, its published variants, and what they cost.

Example:
    >>> model = build_model("morphmlp_s_16x4")
    >>> logits = model(clips)
    >>> maps = model.forward_features(clips)
"""

from morphmlp.models.backbone import MorphMLP
from morphmlp.models.presets import build_model, model_names

__all__ = ["MorphMLP", "build_model", "model_names"]
