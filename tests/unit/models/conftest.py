"""Shape annotations of the model room are checked by beartype in these tests, and only here.

The methods are wrapped, not the import: another test file may have imported them first.
"""

import sys
from pathlib import Path

import pytest
from beartype import beartype
from jaxtyping import jaxtyped

from morphmlp.models import backbone, morphfc

sys.path.insert(0, str(Path(__file__).parent))  # for golden_models

CLASSES = (
    morphfc.Mlp,
    morphfc.SpatialMorphFC,
    morphfc.FrameMorphFC,
    morphfc.TemporalMorphFC,
    backbone.Stem,
    backbone.Downsample,
    backbone.Block,
    backbone.MorphMLP,
)
CHECKED = [
    (owner, name, jaxtyped(typechecker=beartype)(getattr(owner, name)))
    for owner, names in [
        *((cls, ("forward",)) for cls in CLASSES),
        (backbone.MorphMLP, ("forward_features", "forward_head")),
        (morphfc, ("branch_sum", "mix_chunks")),
    ]
    for name in names
]


@pytest.fixture(autouse=True)
def shapes_are_checked(monkeypatch):
    for owner, name, checked in CHECKED:
        monkeypatch.setattr(owner, name, checked)
