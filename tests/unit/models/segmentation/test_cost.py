"""What networks that segment cost: counted, by arithmetic, and what their activations take."""

from dataclasses import replace

import pytest
import torch
import torchvision
from tiny_segmentation import CROP, FPN, MODEL, RESNET, UPERNET, images, network
from torch.utils.flop_counter import FlopCounterMode

from morphmlp.models.cost import activation_bytes, model_cost
from morphmlp.models.planned_cost import planned_cost
from morphmlp.models.presets import PRESETS
from morphmlp.models.published_form import as_published

SIZES = {"num_frames": 1, "crop_size": 512}
PUBLISHED_FPN = replace(FPN, decoder_channels=128)
PUBLISHED_UPERNET = replace(UPERNET, decoder_channels=512)


def published(size):
    model = PRESETS[f"morphmlp_{size}_image"].model
    return replace(model, num_classes=150, chunk_crop_size=224)


@pytest.mark.parametrize(
    ("size", "segmentation", "params", "gmacs"),
    [
        ("t", PUBLISHED_FPN, 27_111_642, 43.43),
        ("s", PUBLISHED_FPN, 44_156_152, 60.08),
        ("b", PUBLISHED_FPN, 61_587_524, 78.17),
        ("s", PUBLISHED_UPERNET, 72_339_342, 249.94),
        ("s", replace(PUBLISHED_FPN, backbone="resnet50"), 28_495_574, 44.42),
        ("s", replace(PUBLISHED_UPERNET, backbone="resnet50"), 66_496_876, 236.78),
    ],
)
def test_parameters_and_gmacs_at_512_px(size, segmentation, params, gmacs):
    cost = model_cost(published(size), **SIZES, segmentation=segmentation)
    assert (cost.params, round(cost.gmacs, 2)) == (params, gmacs)
    planned = planned_cost(published(size), **SIZES, segmentation=segmentation)
    assert planned.params == cost.params
    assert planned.gmacs == pytest.approx(cost.gmacs, rel=1e-12)


def test_decoders_of_a_resnet_add_what_is_published():
    """PVT's paper prints 28.5 M for Semantic FPN on a ResNet-50, mmsegmentation's list 66.5 M for UPerNet."""
    backbone = sum(parameter.numel() for parameter in torchvision.models.resnet50().parameters()) - 2048 * 1000 - 1000
    for segmentation, printed in ((PUBLISHED_FPN, 28.5), (PUBLISHED_UPERNET, 66.5)):
        on_resnet = replace(segmentation, backbone="resnet50")
        cost = model_cost(published("t"), **SIZES, segmentation=on_resnet)
        assert cost.params > backbone
        assert round(cost.params / 1e6, 1) == printed


@pytest.mark.parametrize("segmentation", [FPN, UPERNET, RESNET], ids=["fpn", "upernet", "resnet"])
@pytest.mark.parametrize("view", [None, 40, 97])
def test_any_view_costs_what_is_counted(segmentation, view):
    sizes = {"num_frames": 1, "crop_size": CROP, "view_size": view, "segmentation": segmentation}
    assert planned_cost(MODEL, **sizes).gmacs == pytest.approx(model_cost(MODEL, **sizes).gmacs, rel=1e-12)


def test_convolutions_and_linear_layers_cost_what_torch_counts_on_the_cpu():
    model = as_published(network(FPN)).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images(1))
    cost = model_cost(MODEL, num_frames=1, crop_size=CROP, segmentation=FPN)
    norms = cost.gmacs * 1e9 - counter.get_total_flops() / 2
    assert 0 < norms < 0.05 * cost.gmacs * 1e9


@pytest.mark.parametrize("segmentation", [FPN, UPERNET, RESNET], ids=["fpn", "upernet", "resnet"])
def test_activation_bytes_are_those_of_a_real_step(segmentation):
    counted = activation_bytes(MODEL, num_frames=1, crop_size=CROP, clips=2, segmentation=segmentation)
    model = network(segmentation).train()
    known = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        if tensor.data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    labels = torch.zeros(2, CROP, CROP, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for output in model(images()):
            pixels = torch.nn.functional.interpolate(output, size=(CROP, CROP), mode="bilinear")
            torch.nn.functional.cross_entropy(pixels, labels)
    real = sum(storage.nbytes() for storage in kept.values()) - labels.untyped_storage().nbytes()
    assert counted.total() == pytest.approx(real, rel=0.05)
    assert counted.total((1, 2, 3, 4)) < counted.total()
