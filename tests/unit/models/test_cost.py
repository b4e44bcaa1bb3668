"""Parameters and multiply-accumulates, which may not drift, and activation memory."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from morphmlp.models import MorphMLP
from morphmlp.models.cost import activation_bytes, model_cost, most_activation_bytes
from morphmlp.models.planned_cost import planned_cost
from morphmlp.models.presets import model_names, preset

PUBLISHED = {
    "morphmlp_s_16x4": (47_039_154, 66.36),
    "morphmlp_s_32x4": (47_463_018, 133.34),
    "morphmlp_b_16x4": (67_784_382, 97.83),
    "morphmlp_b_32x4": (68_490_822, 196.70),
    "morphmlp_s_16_ssv1": (46_861_744, 66.36),
    "morphmlp_s_32_ssv2": (47_285_608, 133.34),
    "morphmlp_b_16_ssv2": (67_606_972, 97.83),
    "morphmlp_b_32_ssv1": (68_313_412, 196.70),
    "morphmlp_t_image": (23_393_908, 3.98),
    "morphmlp_s_image": (40_548_122, 6.97),
    "morphmlp_b_image": (57_979_494, 10.25),
    "morphmlp_l_image": (76_185_612, 12.49),
}
"""Parameters and GMAC, by variant."""


@pytest.mark.parametrize("name", model_names())
def test_parameters_and_gmacs_are_the_published_ones_and_those_of_the_arithmetic(name):
    chosen = preset(name)
    sizes = {"num_frames": chosen.num_frames, "crop_size": chosen.crop_size}
    cost = model_cost(chosen.model, **sizes)
    assert planned_cost(chosen.model, **sizes) == cost
    assert (cost.params, round(cost.gmacs, 2)) == PUBLISHED.get(name, (cost.params, round(cost.gmacs, 2)))


def test_the_published_numbers_are_of_variants_that_there_are():
    assert PUBLISHED.keys() <= set(model_names())


@pytest.mark.parametrize(("name", "temporal_params"), [("morphmlp_s_16x4", 6_959_008), ("morphmlp_b_32x4", 10_979_304)])
def test_the_temporal_layers_have_the_published_number_of_parameters(name, temporal_params):
    chosen = preset(name)
    mixed, averaged = (
        planned_cost(replace(chosen.model, temporal=temporal), num_frames=chosen.num_frames, crop_size=224).params
        for temporal in ("mixed", "averaged")
    )
    assert mixed - averaged == temporal_params


TINY = replace(
    preset("morphmlp_s_16x4").model, depths=(2, 2, 2, 1), embed_dims=(16, 16, 24, 32), chunk_lengths=(8, 8, 4, 4)
)

PUBLISHED_CHUNKS = {"chunk_lengths": (14, 28, 28, 49), "embed_dims": (56, 56, 112, 98)}


def test_activation_bytes_grow_with_the_clips():
    one, two, three = (activation_bytes(TINY, num_frames=8, crop_size=64, clips=n).total() for n in (1, 2, 3))
    assert one > 1_000_000
    # BatchNorm's statistics are kept once, whatever the number of clips.
    assert three - two == two - one
    assert one == pytest.approx(two - one, rel=0.01)


@pytest.mark.parametrize("temporal", ["mixed", "averaged", "none"])
@pytest.mark.parametrize(
    ("changes", "num_frames", "crop_size", "clips"),
    [
        (PUBLISHED_CHUNKS, 16, 224, 1),
        ({**PUBLISHED_CHUNKS, "chunk_crop_size": 224}, 4, 256, 1),  # maps are padded to whole chunks
        ({"chunk_lengths": (8, 16, 4, 1)}, 2, 32, 3),  # maps of one site
        ({"mlp_ratio": 1.0}, 8, 64, 2),
        ({"mlp_ratio": 8.0}, 8, 64, 2),
        ({"depths": (1, 1, 9, 1)}, 4, 64, 1),
        ({"embed_dims": (16, 96, 112, 256)}, 8, 64, 2),
    ],
)
def test_the_bound_on_activation_bytes_is_above_them_and_of_their_kind(changes, temporal, num_frames, crop_size, clips):
    config, num_frames = replace(TINY, temporal=temporal, **changes), 1 if temporal == "none" else num_frames
    shape = {"num_frames": num_frames, "crop_size": crop_size, "clips": clips}
    counted, bound = activation_bytes(config, **shape, published=True), most_activation_bytes(config, **shape)
    assert counted.total() <= bound.total() < 4 * counted.total()
    assert (counted.params, counted.trained) == (bound.params, bound.trained)
    for ours, theirs in zip(counted.stages, bound.stages, strict=True):
        assert ours.kept <= theirs.kept


def storages_kept(run, apart):
    """The storages that a pass on the CPU keeps for the backward pass, apart from those of some tensors."""
    known = {tensor.data_ptr() for tensor in apart}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return kept


def real_bytes(stages=()):
    """Kept by a forward pass, inputs of recomputed blocks included, and the most that one such block needs on top."""
    model = MorphMLP(TINY, num_frames=8, crop_size=64).train()
    model.set_activation_checkpointing(stages)
    arguments = {}
    for stage in stages:
        for block in model.stage_blocks()[stage - 1]:
            block.register_forward_pre_hook(lambda block, args: arguments.update({block: args}))
    kept = storages_kept(lambda: model(torch.zeros(2, 3, 8, 64, 64)), model.parameters())
    kept |= {x.data_ptr(): x.untyped_storage() for x, _ in arguments.values()}
    on_top = [
        storages_kept(partial(block.forward, x, drop), [*model.parameters(), x])
        for block, (x, drop) in arguments.items()
    ]
    sizes = [sum(storage.nbytes() for storage in storages.values()) for storages in (kept, *on_top)]
    return sizes[0] + max(sizes[1:], default=0)


@pytest.fixture(scope="module")
def counted():
    return activation_bytes(TINY, num_frames=8, crop_size=64, clips=2)


@pytest.mark.parametrize("stages", [(), (1,), (3,), (1, 2, 3, 4)])
def test_activation_bytes_are_those_of_a_real_forward_pass_and_one_recomputed_block(stages, counted):
    assert counted.total(stages) == pytest.approx(real_bytes(stages), rel=0.02)


def test_each_recomputed_stage_saves_memory(counted):
    assert counted.total() > counted.total((1,)) > counted.total((1, 2)) > counted.total((1, 2, 3))
