"""Semantic FPN and UPerNet against their published arithmetic, written as functions of the weights by name."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork

from morphmlp.models.segmentation.decoders import POOLED_SIDES, ConvUnit, PooledNorm, SemanticFpn, UperNet
from morphmlp.training.loop.batch_norm import RunningStatistics

DIMS = (8, 12, 16, 20)
SIZES = [(512, 512), (224, 224), (500, 683), (37, 64), (64, 33), (32, 32), (5, 7)]


def maps_of(height, width, count=2):
    generator, maps = torch.Generator().manual_seed(0), []
    height, width = -(-height // 2), -(-width // 2)
    for channels in DIMS:
        height, width = -(-height // 2), -(-width // 2)
        maps.append(torch.randn(count, channels, height, width, generator=generator, dtype=torch.float64))
    return maps


def made(decoder):
    """In float64, with norms that do something."""
    torch.manual_seed(1)
    decoder.reset_parameters()
    for module in decoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return decoder.double().eval()


def unit(state, name, x, kernel=3):
    """mmcv's ConvModule in evaluation."""
    y = functional.conv2d(x, state[f"{name}.conv.weight"], padding=kernel // 2)
    norm = {
        key: state[f"{name}.norm.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    }
    y = (y - norm["running_mean"]) / torch.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    return y.clamp(min=0)


def plain(state, name, x, padding=0):
    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)


def resize(x, size):
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def published_semantic_fpn(state, maps):
    laterals = [plain(state, f"laterals.{level}", one) for level, one in enumerate(maps)]
    for level in (3, 2, 1):
        size = laterals[level - 1].shape[2:]
        laterals[level - 1] = laterals[level - 1] + functional.interpolate(laterals[level], size=size, mode="nearest")
    output = None
    for level, (lateral, stride) in enumerate(zip(laterals, (4, 8, 16, 32), strict=True)):
        x = plain(state, f"outputs.{level}", lateral, padding=1)
        for number in range(max(1, int(math.log2(stride) - 2))):
            x = unit(state, f"levels.{level}.{number}", x)
            if stride != 4:
                x = resize(x, [2 * side for side in x.shape[2:]])
        output = x if output is None else output + resize(x, output.shape[2:])
    return plain(state, "classifier.conv", output)


def published_upernet(state, maps):
    pooled = [maps[-1]]
    for number, side in enumerate((1, 2, 3, 6)):
        x = unit(state, f"pooled.{number}", adaptive_mean(maps[-1], side), kernel=1)
        pooled.append(resize(x, maps[-1].shape[2:]))
    laterals = [unit(state, f"laterals.{level}", maps[level], kernel=1) for level in range(3)]
    laterals.append(unit(state, "bottleneck", torch.cat(pooled, dim=1)))
    for level in (3, 2, 1):
        laterals[level - 1] = laterals[level - 1] + resize(laterals[level], laterals[level - 1].shape[2:])
    outputs = [unit(state, f"outputs.{level}", laterals[level]) for level in range(3)] + [laterals[3]]
    outputs = [resize(one, outputs[0].shape[2:]) for one in outputs]
    return plain(state, "classifier.conv", unit(state, "fusion", torch.cat(outputs, dim=1)))


def adaptive_mean(x, side):
    """Means of side x side fields that cover the map, from floor(i n / side) to ceil((i + 1) n / side)."""
    fields = torch.empty(*x.shape[:2], side, side, dtype=x.dtype)
    height, width = x.shape[2:]
    for row in range(side):
        rows = slice(row * height // side, -(-(row + 1) * height // side))
        for column in range(side):
            columns = slice(column * width // side, -(-(column + 1) * width // side))
            fields[:, :, row, column] = x[:, :, rows, columns].mean(dim=(2, 3))
    return fields


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    ("cls", "published"), [(SemanticFpn, published_semantic_fpn), (UperNet, published_upernet)], ids=["fpn", "upernet"]
)
def test_a_decoder_computes_what_is_published_at_any_size(cls, published, height, width):
    decoder = made(cls(DIMS, channels=8, classes=5, dropout=0.1))
    maps = maps_of(height, width)
    with torch.inference_mode():
        (found,) = decoder(maps)
        torch.testing.assert_close(found, published(decoder.state_dict(), maps))
    assert found.shape[2:] == maps[0].shape[2:] == (-(-height // 4), -(-width // 4))


def test_the_neck_is_torchvisions_feature_pyramid():
    decoder = made(SemanticFpn(DIMS, channels=8, classes=5, dropout=0.0))
    names = {"laterals": "inner_blocks", "outputs": "layer_blocks"}
    pyramid = FeaturePyramidNetwork(DIMS, 16).double()
    pyramid.load_state_dict(
        {
            f"{names[kind]}.{level}.0.{rest}": value
            for name, value in decoder.state_dict().items()
            for kind, _, after in [name.partition(".")]
            if kind in names
            for level, _, rest in [after.partition(".")]
        }
    )
    seen = []
    for output in decoder.outputs:
        output.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    maps = maps_of(500, 683)
    with torch.inference_mode():
        decoder(maps)
        expected = pyramid({str(level): one for level, one in enumerate(maps)})
    torch.testing.assert_close(seen, list(expected.values()))


def test_the_auxiliary_head_sees_the_third_map_and_speaks_in_training_alone():
    decoder = made(UperNet(DIMS, channels=8, classes=5, dropout=0.0))
    maps = maps_of(96, 64)
    expected = plain(decoder.state_dict(), "auxiliary.1.conv", unit(decoder.state_dict(), "auxiliary.0", maps[2]))
    torch.testing.assert_close(decoder.auxiliary(maps[2]), expected)
    assert expected.shape == (2, 5, 6, 4)
    assert decoder.auxiliary[0].conv.out_channels == 4
    assert len(decoder(maps)) == 1
    assert [one.shape[2:] for one in decoder.train()(maps)] == [(24, 16), (6, 4)]
    assert UperNet(DIMS, channels=8, classes=5, dropout=0.0, auxiliary=False).auxiliary is None


def test_the_numbers_of_units_are_those_of_the_strides():
    decoder = SemanticFpn(DIMS, channels=8, classes=5, dropout=0.1)
    assert [len(units) for units in decoder.levels] == [max(1, int(math.log2(s) - 2)) for s in (4, 8, 16, 32)]
    assert isinstance(decoder.classifier.dropout, nn.Dropout2d)
    assert decoder.classifier.dropout.p == 0.1


@pytest.mark.parametrize("cls", [SemanticFpn, UperNet])
def test_initial_weights_have_the_published_spread(cls):
    torch.manual_seed(0)
    decoder = cls((64, 64, 64, 64), channels=64, classes=150, dropout=0.1)
    decoder.reset_parameters()
    assert decoder.classifier.conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not decoder.classifier.conv.bias.any()
    units = [module for module in decoder.modules() if isinstance(module, ConvUnit)]
    for one in units:
        outward = one.conv.out_channels * one.conv.kernel_size[0] ** 2
        assert one.conv.weight.std().item() == pytest.approx(math.sqrt(2 / outward), rel=0.05)
        assert one.conv.bias is None
    if cls is SemanticFpn:
        weight = decoder.outputs[0].weight
        limit = math.sqrt(6 / (9 * (weight.shape[0] + weight.shape[1])))
        assert weight.abs().max().item() == pytest.approx(limit, rel=0.01)
        assert not decoder.laterals[0].bias.any()


@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_one_number_for_each_channel_is_normalised_to_the_bias_and_has_gradients(momentum):
    norm = PooledNorm(3, momentum=momentum)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(1, 3, 1, 1, requires_grad=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(3)(x)
    y = norm(x)
    torch.testing.assert_close(y.flatten(), norm.bias)
    # Equal numbers, of which torch does take several, give the same.
    torch.testing.assert_close(
        functional.batch_norm(x.expand(2, 3, 1, 1), None, None, norm.weight, norm.bias, True)[:1], y
    )
    y.sum().backward()
    assert not x.grad.any()
    assert not norm.weight.grad.any()
    torch.testing.assert_close(norm.bias.grad, torch.ones(3))
    torch.testing.assert_close(norm.running_mean, momentum * x.detach().flatten())
    torch.testing.assert_close(norm.running_var, torch.full((3,), 1 - momentum))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_otherwise_the_pooled_norm_is_batch_norm(count):
    ours, torchs = PooledNorm(3), nn.BatchNorm2d(3)
    for side in POOLED_SIDES[count == 1 :]:
        x = torch.randn(count, 3, side, side)
        assert torch.equal(ours(x), torchs(x))
        assert torch.equal(ours.eval()(x), torchs.eval()(x))
        ours.train()
        torchs.train()
    assert torch.equal(ours.running_var, torchs.running_var)


@pytest.mark.parametrize("cls", [SemanticFpn, UperNet])
def test_running_statistics_of_a_decoder_move_once_a_step_by_all_of_its_images(cls):
    """Two micro-batches of one step, of unequal sizes, against the statistics of each, weighted by its images."""
    torch.manual_seed(0)
    decoder = cls(DIMS, channels=8, classes=5, dropout=0.0).train()
    norms = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.BatchNorm2d)}
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    parts = [[one.float() for one in maps_of(64, 64, count)] for count in (2, 1)]
    expected = {name: torch.zeros_like(norm.running_mean) for name, norm in norms.items()}

    def add(name, inputs):
        expected[name] += len(inputs[0]) * inputs[0].detach().mean(dim=(0, 2, 3))

    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs))
    statistics = RunningStatistics(decoder)
    statistics.begin_step()
    for maps in parts:
        decoder(maps)
        statistics.add_micro_batch(len(maps[0]))
    statistics.end_step(statistics.flat_sums(), torch.tensor(3.0))
    for name, norm in norms.items():
        torch.testing.assert_close(norm.running_mean, before[name] + 0.1 * expected[name] / 3)
