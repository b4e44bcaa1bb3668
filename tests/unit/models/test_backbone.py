"""The network as a whole: wiring of the variants, initial weights, memory, errors."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from morphmlp.config import ModelConfig
from morphmlp.errors import ConfigError
from morphmlp.models import MorphMLP, build_model
from morphmlp.models.backbone import drop_path_rates
from morphmlp.models.morphfc import TemporalMorphFC
from morphmlp.models.presets import preset

TINY = ModelConfig(
    depths=(1, 2, 1, 1),
    embed_dims=(16, 16, 24, 32),
    chunk_lengths=(8, 8, 4, 4),
    mlp_ratio=2.0,
    drop_path_rate=0.0,
    num_classes=5,
    temporal="mixed",
    init="published",
)
FRAMES, CROP = 8, 64


def tiny(**changes: object) -> MorphMLP:
    torch.manual_seed(0)
    return MorphMLP(replace(TINY, **changes), num_frames=FRAMES, crop_size=CROP)


def clips(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, FRAMES, CROP, CROP, generator=torch.Generator().manual_seed(1))


def gradients(model: MorphMLP, x: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    cross_entropy(model(x), torch.arange(len(x)) % 5).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_a_clip_gives_one_row_of_logits():
    assert tiny()(clips(3)).shape == (3, 5)


def test_features_are_four_maps_channels_first():
    maps = tiny().forward_features(clips())
    assert [tuple(stage_map.shape) for stage_map in maps] == [
        (2, 16, 4, 16, 16),
        (2, 16, 4, 8, 8),
        (2, 24, 4, 4, 4),
        (2, 32, 4, 2, 2),
    ]


def test_the_head_on_the_last_map_is_the_forward_pass():
    model = tiny().eval()
    assert model.forward_head(model.forward_features(clips())[-1]).equal(model(clips()))


def test_an_image_model_takes_images_and_has_no_temporal_layer():
    model = tiny(temporal="none")
    images = torch.randn(2, 3, CROP, CROP)
    assert model(images).shape == (2, 5)
    assert [tuple(stage_map.shape) for stage_map in model.forward_features(images)] == [
        (2, 16, 16, 16),
        (2, 16, 8, 8),
        (2, 24, 4, 4),
        (2, 32, 2, 2),
    ]
    assert not [name for name in model.state_dict() if ".t_" in name]
    assert model.patch_embed1.proj1.weight.ndim == 4


def test_an_odd_number_of_frames_fits_as_well():
    model = MorphMLP(TINY, num_frames=7, crop_size=CROP)
    assert model(clips()[:, :, :7]).shape == (2, 5)


def test_published_weights_start_with_a_silent_temporal_path():
    published, averaged = tiny().eval(), tiny(temporal="averaged").eval()
    shared = averaged.state_dict()
    assert {name for name in published.state_dict() if ".t_" not in name} == set(shared)
    published.load_state_dict(shared, strict=False)
    assert published(clips()).equal(averaged(clips()))


def test_published_weights_are_as_the_source_sets_them():
    full = replace(preset("morphmlp_s_16x4").model, depths=(1, 1, 1, 1))
    model = MorphMLP(full, num_frames=16, crop_size=224)
    block = model.blocks3[0]
    assert torch.count_nonzero(block.t_fc.mlp_t.weight) == 0
    assert block.t_fc.proj.weight.eq(1).all()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            assert torch.count_nonzero(module.bias) == 0
        if isinstance(module, nn.LayerNorm):
            assert module.weight.eq(1).all()
    for drawn in (model.head.weight, block.fc.mlp_w.weight, block.mlp.fc1.weight):
        assert drawn.mean().item() == pytest.approx(0, abs=5e-4)
        assert drawn.std().item() == pytest.approx(0.02, rel=0.02)


def test_only_a_random_projection_lets_the_temporal_layers_learn_from_the_first_step():
    greatest = {}
    for init in ("published", "random_projection"):
        grads = gradients(tiny(init=init).double(), clips().double())
        greatest[init] = max(grad.abs().max().item() for name, grad in grads.items() if "mlp_t.weight" in name)
    assert greatest["published"] < 1e-15
    assert greatest["random_projection"] > 1e-7


def test_a_random_projection_also_starts_at_zero_output():
    model = tiny(init="random_projection")
    temporal = [module for module in model.modules() if isinstance(module, TemporalMorphFC)]
    assert len(temporal) == sum(TINY.depths)
    for layer in temporal:
        assert torch.count_nonzero(layer.mlp_t.weight) == 0
        assert layer.proj.weight.std().item() == pytest.approx(0.02, rel=0.3)
        assert torch.count_nonzero(layer.proj.bias) == 0


def test_every_parameter_gets_a_gradient():
    # With the temporal FC at 0 its projection has an exactly zero gradient, but it has one (DDP wants that).
    assert all(grad is not None for grad in gradients(tiny(), clips()).values())


def test_drop_path_grows_linearly_from_zero_over_all_blocks():
    assert drop_path_rates(0.4, (1, 2, 1, 1)) == pytest.approx((0, 0.1, 0.2, 0.3, 0.4))
    assert drop_path_rates(0.4, (1,)) == (0,)
    model = tiny(drop_path_rate=0.4)
    blocks = [*model.blocks1, *model.blocks2, *model.blocks3, *model.blocks4]
    assert [block.drop_path.p for block in blocks] == pytest.approx((0, 0.1, 0.2, 0.3, 0.4))


def test_drop_path_acts_in_training_only_and_never_on_the_temporal_layer():
    block = tiny(drop_path_rate=0.999999, init="random_projection").blocks4[0]
    x = torch.randn(2, 4, 2, 2, 32)
    assert block.train()(x).equal(x)
    assert not block.eval()(x).equal(x)


def test_activation_checkpointing_gives_the_same_gradients_with_the_same_drop_path_draws():
    plain, recomputing = (tiny(drop_path_rate=0.5, init="random_projection") for _ in range(2))
    recomputing.set_activation_checkpointing(True)
    expected, found = gradients(plain, clips(4)), gradients(recomputing, clips(4))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert recomputing.patch_embed1.norm1.num_batches_tracked == 1


def test_activation_checkpointing_keeps_less():
    def kept(model: MorphMLP) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(clips())
        return sum(sizes)

    plain, recomputing = tiny(), tiny()
    recomputing.set_activation_checkpointing(True)
    assert kept(recomputing) < kept(plain) / 2
    assert kept(recomputing.eval()) == kept(plain.eval())


def test_shapes_that_do_not_fit_name_stage_value_and_rule():
    with pytest.raises(ConfigError) as caught:
        MorphMLP(replace(TINY, chunk_lengths=(8, 5, 4, 3)), num_frames=FRAMES, crop_size=CROP)
    faults = caught.value.faults
    assert len(faults) == 4
    assert "stage 2: chunk length 5 must divide the stage's 16 channels" in faults[0]
    assert "stage 4: chunk length 3 must divide its 4 tokens (2x2 at clip.crop_size 64)" in faults[3]


def test_256_pixels_are_refused_for_the_published_chunks():
    with pytest.raises(ConfigError, match="stage 1: chunk length 14 must divide its 4096 tokens"):
        build_model("morphmlp_s_16x4", crop_size=256)


@pytest.mark.parametrize("shape", [(2, 3, 6, 64, 64), (2, 3, 8, 64, 32), (2, 1, 8, 64, 64), (2, 3, 64, 64)])
def test_an_input_of_another_size_is_refused_with_both_sizes(shape):
    with pytest.raises(ValueError, match=r"= \[b, 3, 8, 64, 64\], got ") as caught:
        tiny()(torch.zeros(shape))
    assert f"got {list(shape)}" in str(caught.value)


def test_a_model_is_built_on_meta_without_memory_and_can_be_filled_later():
    with torch.device("meta"):
        model = MorphMLP(TINY, num_frames=FRAMES, crop_size=CROP)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    model.reset_parameters()
    again = tiny()
    torch.manual_seed(0)
    again.reset_parameters()
    torch.testing.assert_close(model.state_dict(), again.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_of_the_published_form_loads_strictly():
    source, target = tiny(init="random_projection").eval(), tiny().eval()
    nn.init.normal_(source.head.bias)
    target.load_state_dict(source.state_dict())
    assert target(clips()).equal(source(clips()))
