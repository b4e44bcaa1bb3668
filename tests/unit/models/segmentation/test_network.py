"""Networks that segment: any size, names of the backbone, parts, recomputed and compiled blocks, a known backbone."""

import sys
from dataclasses import replace

import pytest
import torch
import torchvision
from tiny_network import tiny
from tiny_segmentation import CROP, FPN, MODEL, RESNET, UPERNET, gradients, images, network
from torch import nn

from morphmlp.errors import ConfigError
from morphmlp.models.build import build_network
from morphmlp.models.parts import freeze, layers_of, part_of, training_mode
from morphmlp.models.presets import PRESETS
from morphmlp.models.segmentation import resnet
from morphmlp.training.loop.batch_norm import RunningStatistics

SHAPES = ("windows", "padded_line", "padded_side")


@pytest.mark.parametrize(
    ("segmentation", "sizes"),
    [
        *((one, [(64, 64), (512, 512), (224, 224), (125, 171), (37, 64), (5, 7)]) for one in (FPN, UPERNET)),
        (RESNET, [(125, 171), (5, 7)]),
    ],
    ids=["fpn", "upernet", "resnet"],
)
def test_images_of_any_size_get_logits_at_a_quarter_of_it(segmentation, sizes):
    model = network(segmentation).eval()
    for height, width in sizes:
        with torch.inference_mode():
            found = model(images(1, height, width))
        assert found.shape == (1, MODEL.num_classes, -(-height // 4), -(-width // 4))
        assert found.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_at_the_trained_size_every_chunk_shape_is_the_same_network_bit_for_bit(shape):
    model = replace(PRESETS["morphmlp_t_image"].model, depths=(1, 1, 1, 1), num_classes=3)

    def logits(**changes):
        torch.manual_seed(0)
        made = build_network(replace(model, **changes), num_frames=1, crop_size=224, segmentation=FPN).eval()
        with torch.inference_mode():
            return made(images(1, 224, 224))

    assert torch.equal(logits(chunk_shape=shape), logits())


@pytest.mark.parametrize("segmentation", [FPN, UPERNET, RESNET], ids=["fpn", "upernet", "resnet"])
def test_every_parameter_learns(segmentation):
    model = network(segmentation, init="random_projection").train()
    outputs = model(images(2, 72, 56))
    assert [tuple(one.shape) for one in outputs] == [(2, 5, 18, 14), (2, 5, 5, 4)][: 1 + (segmentation == UPERNET)]
    sum(one.square().mean() for one in outputs).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_a_single_image_goes_through_upernet_in_training():
    model = network(UPERNET).train()
    sum(one.sum() for one in model(images(1))).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_backbone_has_the_names_of_a_classifier_and_its_maps():
    model, classifier = network().eval(), tiny(temporal="none", drop_path_rate=0.0).eval()
    own = {name for name in model.state_dict() if not name.startswith(("decoder.", "norms."))}
    assert own == classifier.state_dict().keys() - {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    model.load_state_dict({name: value for name, value in classifier.state_dict().items() if name in own}, strict=False)
    with torch.inference_mode():
        for one, other in zip(model.forward_features(images()), classifier.forward_features(images()), strict=True):
            assert torch.equal(one, other)


def test_each_map_that_the_decoder_sees_is_normalised_over_its_channels():
    model, seen = network().eval(), []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    with torch.inference_mode():
        model(images())
        for one, raw in zip(seen, model.forward_features(images()), strict=True):
            mean, var = raw.mean(dim=1, keepdim=True), raw.var(dim=1, keepdim=True, correction=0)
            torch.testing.assert_close(one, (raw - mean) / (var + 1e-5).sqrt(), rtol=1e-4, atol=1e-4)


def test_norms_and_decoder_are_parts_of_the_head():
    names = [name for name, _ in network(UPERNET).named_parameters()]
    heads = [name for name in names if part_of(name) == "head"]
    assert {name.partition(".")[0] for name in heads} == {"norms", "decoder"}
    layers = layers_of(names)
    assert {layers[name] for name in heads} == {sum(MODEL.depths) + 1}
    assert layers["patch_embed1.proj1.weight"] == 0


def test_parts_and_layers_of_a_resnet():
    names = [name for name, _ in network(RESNET).named_parameters()]
    layers = layers_of(names)
    for name, part, layer in (
        ("conv1.weight", "stem", 0),
        ("bn1.bias", "stem", 0),
        ("layer1.0.conv1.weight", "stage1", 1),
        ("layer1.2.bn3.weight", "stage1", 3),
        ("layer2.0.downsample.0.weight", "stage2", 4),
        ("layer4.2.conv3.weight", "stage4", 16),
        ("decoder.classifier.conv.weight", "head", 17),
    ):
        assert (part_of(name), layers[name]) == (part, layer), name


@pytest.mark.parametrize("segmentation", [FPN, RESNET], ids=["morphmlp", "resnet"])
def test_frozen_parts_keep_weights_and_statistics(segmentation):
    model = network(segmentation)
    freeze(model, ["stem", "stage1"])
    training_mode(model)
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    frozen = {name for name in norms if part_of(name) in ("stem", "stage1")}
    assert frozen
    assert {name for name in norms if not model.get_submodule(name).training} == frozen
    statistics = RunningStatistics(model)
    assert len(statistics._norms) == len(norms) - len(frozen)
    sum(one.sum() for one in model(images())).backward()
    learning = {part_of(name) for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {"stage2", "stage3", "stage4", "head"}


@pytest.mark.parametrize("segmentation", [FPN, UPERNET, RESNET], ids=["fpn", "upernet", "resnet"])
def test_recomputed_blocks_give_the_same_gradients_and_statistics(segmentation):
    plain, recomputed = (network(segmentation, drop_path_rate=0.3).train() for _ in range(2))
    recomputed.set_activation_checkpointing((1, 2, 3, 4))
    found = []
    for model in (plain, recomputed):
        statistics = RunningStatistics(model)
        statistics.begin_step()
        values = gradients(model, images(2, 72, 56))
        statistics.add_micro_batch(2)
        statistics.end_step(statistics.flat_sums(), torch.tensor(2.0))
        found.append({**values, **dict(model.named_buffers())})
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_the_resnet_is_torchvisions():
    model, known = network(RESNET).eval(), torchvision.models.resnet50(weights=None).eval()
    own = {name: value for name, value in known.state_dict().items() if not name.startswith("fc.")}
    assert own.keys() == {name for name in model.state_dict() if not name.startswith("decoder.")}
    model.load_state_dict(own, strict=False)
    nodes = {f"layer{stage}": str(stage) for stage in range(1, 5)}
    maps = torchvision.models._utils.IntermediateLayerGetter(known, nodes)
    x = images(1, 125, 171)
    with torch.inference_mode():
        for one, other in zip(model.forward_features(x), maps(x).values(), strict=True):
            assert torch.equal(one, other)


def test_without_torchvision_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ConfigError, match=r"segmentation\.backbone: resnet50.*pip install 'morphmlp\[resnet\]'"):
        network(RESNET)


def test_a_resnet_takes_images_alone():
    with pytest.raises(ValueError, match=r"takes images \[b, 3, h, w\], got \[1, 4, 64, 64\]"):
        network(RESNET)(torch.zeros(1, 4, 64, 64))


def test_one_seed_gives_one_network_and_meta_gives_none():
    first, second = network(UPERNET).state_dict(), network(UPERNET).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    with torch.device("meta"):
        model = network(UPERNET)
    assert next(model.parameters()).is_meta
    torch.manual_seed(0)
    model.to_empty(device="cpu").reset_parameters()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model.input_shape == (3, CROP, CROP)
    assert resnet.RESNET_DIMS == (256, 512, 1024, 2048)
