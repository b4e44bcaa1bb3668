"""Variants of a training step side by side."""

from pathlib import Path

import pytest
import torch

from morphmlp.benchmarks import step_variants
from morphmlp.benchmarks.step_variants import AS_CONFIGURED, VARIANTS, compare_variants, variants_table

SMALL = str(Path(__file__).parents[1] / "small_experiment.yaml")
SHORTER = {
    "model.depths": [1, 1, 1, 1],
    "model.embed_dims": [16, 16, 16, 16],
    "clip.num_frames": 2,
    "train.global_batch_size": 2,
    "train.micro_batch_size": 2,
}


@pytest.fixture
def without_compiling(monkeypatch):
    kept = {name: changes for name, changes in VARIANTS.items() if "execution.compile" not in changes}
    monkeypatch.setattr(step_variants, "VARIANTS", kept)


def test_each_variant_is_held_against_the_experiment_as_it_is(without_compiling):
    lines = []
    found = compare_variants(SMALL, SHORTER, rounds=2, steps=1, device=torch.device("cpu"), log=lines.append)
    names = [variant.name for variant in found.variants]
    assert names == [AS_CONFIGURED, "fp32", "recomputed blocks"]
    assert found.variants[0].ratio == 1
    assert len(lines) == 9
    for variant in found.variants:
        assert variant.clips_per_s == pytest.approx(4 / variant.step_s)
        assert variant.peak_bytes is None
    usual, _, recomputed = found.variants
    assert recomputed.activation_bytes < usual.activation_bytes
    table = variants_table(found).splitlines()
    assert len(table) == 5
    assert "recomputed blocks" in table[-1]


def test_compilation_is_asked_for_by_the_variants_that_say_so():
    assert [name for name, changes in VARIANTS.items() if "execution.compile" in changes] == [
        "compiled blocks",
        "compiled and recomputed",
    ]
