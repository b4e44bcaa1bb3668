"""Parameters and multiply-accumulates, which may not drift, and activation memory."""

from dataclasses import replace

import pytest
import torch

from morphmlp.models import MorphMLP
from morphmlp.models.cost import activation_bytes, model_cost
from morphmlp.models.presets import preset


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("morphmlp_s_16x4", 47_039_154, 66.36),
        ("morphmlp_s_32x4", 47_463_018, 133.34),
        ("morphmlp_b_16x4", 67_784_382, 97.83),
        ("morphmlp_b_32x4", 68_490_822, 196.70),
        ("morphmlp_s_16_ssv1", 46_861_744, 66.36),
        ("morphmlp_s_32_ssv2", 47_285_608, 133.34),
        ("morphmlp_b_16_ssv2", 67_606_972, 97.83),
        ("morphmlp_b_32_ssv1", 68_313_412, 196.70),
        ("morphmlp_t_image", 23_393_908, 3.98),
        ("morphmlp_s_image", 40_548_122, 6.97),
        ("morphmlp_b_image", 57_979_494, 10.25),
        ("morphmlp_l_image", 76_185_612, 12.49),
    ],
)
def test_parameters_and_gmacs_are_the_published_ones(name, params, gmacs):
    chosen = preset(name)
    cost = model_cost(chosen.model, num_frames=chosen.num_frames, crop_size=chosen.crop_size)
    assert cost.params == params
    assert round(cost.gmacs, 2) == gmacs


@pytest.mark.parametrize(("name", "temporal_params"), [("morphmlp_s_16x4", 6_959_008), ("morphmlp_b_32x4", 10_979_304)])
def test_the_temporal_layers_have_the_published_number_of_parameters(name, temporal_params):
    chosen = preset(name)
    mixed, averaged = (
        model_cost(replace(chosen.model, temporal=temporal), num_frames=chosen.num_frames, crop_size=224).params
        for temporal in ("mixed", "averaged")
    )
    assert mixed - averaged == temporal_params


TINY = replace(preset("morphmlp_s_16x4").model, embed_dims=(16, 16, 24, 32), chunk_lengths=(8, 8, 4, 4))


def test_activation_bytes_grow_with_the_clips():
    one, two, three = (activation_bytes(TINY, num_frames=8, crop_size=64, clips=n) for n in (1, 2, 3))
    assert one > 1_000_000
    # BatchNorm's statistics are kept once, whatever the number of clips.
    assert three - two == two - one
    assert one == pytest.approx(two - one, rel=0.01)


def test_activation_bytes_are_those_of_a_real_forward_pass():
    model = MorphMLP(TINY, num_frames=8, crop_size=64).train()
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(2, 3, 8, 64, 64))
    real = sum(storage.nbytes() for storage in kept.values())
    assert activation_bytes(TINY, num_frames=8, crop_size=64, clips=2) == pytest.approx(real, rel=0.02)
