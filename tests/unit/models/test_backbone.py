"""The network as a whole: wiring of the variants, initial weights, memory, errors."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_network import CROP, FRAMES, TINY, clips, gradients, tiny
from torch import nn
from torchvision.ops import StochasticDepth

from morphmlp.errors import ConfigError
from morphmlp.models import MorphMLP, build_model
from morphmlp.models.backbone import drop_path_rates
from morphmlp.models.morphfc import FrameMorphFC, SpatialMorphFC, TemporalMorphFC
from morphmlp.models.presets import preset


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
    assert [block.drop_path_rate for block in blocks] == pytest.approx((0, 0.1, 0.2, 0.3, 0.4))


def test_drop_path_acts_in_training_only_and_never_on_the_temporal_layer():
    block = tiny(drop_path_rate=0.999999, init="random_projection").blocks4[0]
    x = torch.randn(2, 4, 2, 2, 32)
    assert block.train()(x, block.draw_kept(x)).equal(x)
    assert block.eval().draw_kept(x) is None
    assert not block(x).equal(x)


def test_a_kept_branch_is_scaled_up_so_that_its_mean_stays():
    block = tiny(drop_path_rate=0.25).blocks4[0].train()
    torch.manual_seed(0)
    kept = block.draw_kept(torch.zeros(4000, 4, 2, 2, 32))
    assert kept.shape == (2, 4000, 1, 1, 1, 1)
    assert torch.equal(kept.unique(), torch.tensor([0, 1 / 0.75]))
    assert torch.allclose(kept.mean(dim=1).flatten(), torch.ones(2), atol=0.05)
    assert not kept[0].equal(kept[1])


def test_drop_path_acts_on_the_branches_as_torchvision_does():
    block = tiny(drop_path_rate=0.5, init="random_projection").blocks4[0].train()
    x = torch.randn(6, 4, 2, 2, 32)
    theirs = StochasticDepth(0.5, mode="row")
    torch.manual_seed(3)
    u = x + block.t_fc(block.t_norm1(x))
    y = x + theirs(block.fc(block.norm1(u)))
    expected = y + theirs(block.mlp(block.norm2(y)))
    torch.manual_seed(3)
    assert block(x, block.draw_kept(x)).equal(expected)


STAGE_SETS = [(1,), (2,), (3,), (4,), (1, 3), (1, 2, 3, 4), ()]


@pytest.mark.parametrize("stages", STAGE_SETS)
def test_activation_checkpointing_of_any_stages_gives_the_same_gradients_with_the_same_drop_path_draws(stages):
    plain, recomputing = (tiny(drop_path_rate=0.5, init="random_projection") for _ in range(2))
    recomputing.set_activation_checkpointing(stages)
    expected, found = gradients(plain, clips(4)), gradients(recomputing, clips(4))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("stages", STAGE_SETS)
def test_only_blocks_of_the_named_stages_run_again_in_the_backward_pass(stages):
    model = tiny()
    model.set_activation_checkpointing(stages)
    runs = Counter()
    for stage, blocks in enumerate(model.stage_blocks(), start=1):
        for block in blocks:
            block.register_forward_pre_hook(lambda *_, stage=stage: runs.update([stage]))
    gradients(model, clips())
    assert runs == {
        stage: depth * (2 if stage in stages else 1) for stage, depth in enumerate(model.config.depths, start=1)
    }


def test_recomputation_does_not_count_batch_norm_statistics_twice():
    # There is none inside the blocks, and the stem's sees each micro-batch once.
    plain, recomputing = tiny(), tiny()
    recomputing.set_activation_checkpointing((1, 2, 3, 4))
    for model in (plain, recomputing):
        gradients(model, clips())
    inside = [m for blocks in plain.stage_blocks() for m in blocks.modules() if isinstance(m, nn.BatchNorm3d)]
    assert not inside
    buffers = dict(plain.named_buffers())
    assert len(buffers) == 6
    torch.testing.assert_close(dict(recomputing.named_buffers()), buffers, rtol=0, atol=0)
    assert recomputing.patch_embed1.norm1.num_batches_tracked == 1


def test_activation_checkpointing_keeps_less_with_every_stage_in_training_only():
    def kept(model: MorphMLP) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(clips())
        return sum(sizes)

    model = tiny()
    plain = kept(model)
    saved = []
    for stage in (1, 2, 3, 4):
        model.set_activation_checkpointing([stage])
        saved.append(plain - kept(model))
    model.set_activation_checkpointing([1, 2, 3, 4])
    assert min(saved) > 0
    assert plain - kept(model) == sum(saved) > plain / 2
    in_evaluation = kept(model.eval())
    model.set_activation_checkpointing(())
    assert in_evaluation == kept(model)


@pytest.mark.parametrize("recomputed", [(), (1, 3)], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("most_map_bytes", "at_once"),
    [
        (1, [[1] * 5, [1] * 5, [1] * 5, [1] * 5]),
        (3 * (4 * 8 * 8) * (2 * 16) * 8, [[1] * 5, [3, 2], [5], [5]]),  # fp64
        (2**25, [[5], [5], [5], [5]]),
    ],
    ids=["one", "three of stage 2", "all"],
)
def test_few_clips_at_once_give_the_same_gradients_with_the_same_drop_path_draws(most_map_bytes, at_once, recomputed):
    whole, few = (tiny(drop_path_rate=0.5).double() for _ in range(2))
    few.set_activation_checkpointing(recomputed)
    few.most_map_bytes = most_map_bytes
    seen = [[], [], [], []]
    for stage, blocks in zip(seen, few.stage_blocks(), strict=True):
        blocks[0].register_forward_pre_hook(lambda _, args, stage=stage: stage.append(len(args[0])))
    with torch.no_grad():
        few(clips(5).double())
    assert seen == at_once
    expected, found = (gradients(model, clips(5).double()) for model in (whole, few))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12, msg=name)


def test_a_network_takes_few_clips_at_once_on_cpus_alone():
    model = tiny().fit_to(torch.device("cpu"))
    assert model.most_map_bytes == 2**25
    layers = [layer for layer in model.modules() if isinstance(layer, TemporalMorphFC | SpatialMorphFC | FrameMorphFC)]
    assert {type(layer) for layer in layers if layer.on_cpu} == {TemporalMorphFC, SpatialMorphFC, FrameMorphFC}
    assert model.fit_to(torch.device("meta")).most_map_bytes is None
    assert not any(layer.on_cpu for layer in layers)


@pytest.mark.parametrize("stages", [(0,), (1, 5)])
def test_an_unknown_stage_is_refused(stages):
    with pytest.raises(ValueError, match=r"no stage \[[05]\]; there are 1-4"):
        tiny().set_activation_checkpointing(stages)


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


@pytest.mark.parametrize("shape", [(2, 3, 6, 64, 64), (2, 1, 8, 64, 64), (2, 3, 64, 64)])
def test_an_input_of_other_frames_channels_or_axes_is_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"= \[b, 3, 8, h, w\], got ") as caught:
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
