"""Variants of a training step side by side."""

from pathlib import Path

import pytest
import torch

from morphmlp.benchmarks import step_variants
from morphmlp.benchmarks.block_limits import limits_table
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
    assert len(lines) == 11
    assert "fused kernels: left out, Triton's kernels need a GPU" in lines
    for variant in found.variants:
        assert variant.clips_per_s == pytest.approx(4 / variant.step_s)
        assert variant.peak_bytes is None
    usual, _, recomputed = found.variants
    assert recomputed.activation_bytes < usual.activation_bytes
    table = variants_table(found).splitlines()
    assert len(table) == 5
    assert "recomputed blocks" in table[-1]


def test_each_block_stands_next_to_its_own_limit(without_compiling):
    found = compare_variants(SMALL, SHORTER, rounds=1, steps=1, device=torch.device("cpu"), log=lambda line: None)
    assert [(limit.variant, limit.stage) for limit in found.blocks] == [
        (variant.name, stage) for variant in found.variants for stage in (1, 2, 3, 4)
    ]
    usual, _, recomputed = (found.blocks[first : first + 4] for first in (0, 4, 8))
    for plain, twice in zip(usual, recomputed, strict=True):
        assert plain.moved.bytes < twice.moved.bytes < 2 * plain.moved.bytes
        # A pass more than three, but for what comes after the last map that the backward pass needs.
        assert 3 * plain.moved.flops < 3 * twice.moved.flops <= 4 * plain.moved.flops
        assert plain.times_over == pytest.approx(plain.seconds / plain.least_s)
    assert set(found.peaks) == {"16 bit", "fp32"}
    assert len(limits_table(found.blocks).splitlines()) == 2 + 12


def test_compilation_is_asked_for_by_the_variants_that_say_so():
    assert [name for name, changes in VARIANTS.items() if "execution.compile" in changes] == [
        "compiled blocks",
        "fused kernels, compiled blocks",
        "compiled and recomputed",
    ]
