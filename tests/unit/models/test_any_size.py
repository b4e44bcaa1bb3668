"""Maps of other sizes than the network was made for: windows, padded lines and padded sides, against naive loops."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_network import CROP, FRAMES, TINY, clips, tiny
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from morphmlp.config import load_config
from morphmlp.config.shapes import Chunks, shape_faults, stage_chunks, stage_grids, trained_window
from morphmlp.data.columns import DECODED
from morphmlp.errors import ConfigError
from morphmlp.evaluation.ray_evaluator import Scorer, ScorerPool
from morphmlp.models import MorphMLP, build_model
from morphmlp.models.cost import model_cost
from morphmlp.models.morphfc import SpatialMorphFC, mix_chunks
from morphmlp.models.planned_cost import planned_cost
from morphmlp.models.presets import PRESETS, Preset
from morphmlp.models.weights.describe import describe_model, differences
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.task import network_input

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"
SHAPES = ("windows", "padded_line", "padded_side")
PUBLISHED = stage_chunks((14, 28, 28, 49), crop_size=224)


def naive(x: torch.Tensor, fc: nn.Linear, *, places: list[list[tuple[int, int] | None]], groups: int) -> torch.Tensor:
    """The layer chunk by chunk; `places` are the tokens of each, None for one that is padded."""
    y, size = torch.full_like(x, float("nan")), x.shape[-1] // groups
    for chunk, group in product(places, range(groups)):
        channels = slice(group * size, (group + 1) * size)
        values = [torch.zeros(size) if place is None else x[0, 0, *place, channels] for place in chunk]
        mixed = fc(torch.cat(values).to(x)).reshape(len(chunk), size)
        for place, value in zip(chunk, mixed, strict=True):
            if place is not None:
                y[0, 0, *place, channels] = value
    return y


def inside(place: tuple[int, int], height: int, width: int) -> tuple[int, int] | None:
    return place if 0 <= place[0] < height and 0 <= place[1] < width else None


def tiles(height, width, rows, columns, *, by_columns, top=0, left=0):
    """The tokens of all windows, in order, where the first one begins at (-top, -left)."""
    for first, start in product(range(-top, height, rows), range(-left, width, columns)):
        window = product(range(rows), range(columns))
        if by_columns:
            window = ((row, column) for column, row in product(range(columns), range(rows)))
        yield [inside((first + row, start + column), height, width) for row, column in window]


def line(height, width, length, *, by_columns, strided):
    tokens = [divmod(token, width) for token in range(height * width)]
    if by_columns:
        tokens = [(row, column) for column, row in product(range(width), range(height))]
    tokens += [None] * (-len(tokens) % length)
    chunks = len(tokens) // length
    return [tokens[n::chunks] if strided else tokens[n * length : (n + 1) * length] for n in range(chunks)]


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=12, deadline=None)
@given(
    chunk=st.sampled_from([(4, 8, 1), (8, 8, 2), (8, 4, 3), (16, 4, 3), (16, 4, 4), (4, 4, 4), (1, 4, 4)]),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
)
def test_a_layer_over_chunks_is_the_loop_over_its_chunks(chunk, height, width, shape, by_columns):
    length, side, stage = chunk
    by_columns = by_columns and stage < 4  # which has one branch over tokens
    chunks = Chunks(length=length, stage=stage, shape=shape, side=side)
    torch.manual_seed(0)
    x, fc = (
        torch.randn(1, 1, height, width, 2 * length, dtype=torch.float64),
        nn.Linear(2 * length, 2 * length).double(),
    )
    if shape == "windows" and (height, width) != (side, side):
        rows, columns = trained_window(length, side, stage=stage)
        if by_columns:
            rows, columns = columns, rows
        places = list(tiles(height, width, rows, columns, by_columns=by_columns))
    elif shape == "padded_side" and height * width % length:
        if by_columns:
            top = (-height % length) // 2
            places = list(tiles(height, width, length, 1, by_columns=True, top=top))
        else:
            left = (-width % length) // 2
            places = list(tiles(height, width, 1, length, by_columns=False, left=left))
    else:
        places = line(height, width, length, by_columns=by_columns, strided=stage == 4)
    found = mix_chunks(x, fc, chunks=chunks, groups=length, by_columns=by_columns)
    torch.testing.assert_close(found, naive(x, fc, places=places, groups=length))
    assert chunks.count(height, width, by_columns=by_columns) == len(places)


@pytest.mark.parametrize(
    ("length", "side", "stage", "window"),
    [
        *((14, 56, 1, (1, 14)), (28, 28, 2, (1, 28)), (28, 14, 3, (2, 14)), (49, 7, 4, (7, 7)), (7, 7, 4, (7, 1))),
        *((1, 5, 4, (1, 1)), (4, 6, 1, None), (14, 14, 4, (14, 1)), (28, 14, 4, None)),
    ],
)
def test_the_window_is_the_shape_of_the_trained_chunk(length, side, stage, window):
    """Found from the tokens of each chunk of the map it was trained on."""
    chunks = line(side, side, length, by_columns=False, strided=stage == 4)
    spans = {(max(r) - min(r) + 1, max(c) - min(c) + 1) for r, c in (zip(*chunk, strict=True) for chunk in chunks)}
    rectangle = spans.pop() if len(spans) == 1 else None
    if rectangle is not None and rectangle[0] * rectangle[1] != length:
        rectangle = None
    assert trained_window(length, side, stage=stage) == window == rectangle


@pytest.mark.parametrize("chunks", PUBLISHED[:3], ids=["stage 1", "stage 2", "stage 3"])
@pytest.mark.parametrize("by_columns", [False, True])
def test_on_the_trained_map_windows_hold_the_tokens_of_the_published_line(chunks, by_columns):
    fc = nn.Linear(2 * chunks.length, 2 * chunks.length).double()
    x = torch.randn(1, 1, chunks.side, chunks.side, 2 * chunks.length, dtype=torch.float64)
    expected = mix_chunks(x, fc, chunks=chunks, groups=chunks.length, by_columns=by_columns)
    wider = torch.nn.functional.pad(x, (0, 0, 0, chunks.side, 0, chunks.side))  # more windows of zeros
    found = mix_chunks(wider, fc, chunks=chunks, groups=chunks.length, by_columns=by_columns)
    torch.testing.assert_close(found[:, :, : chunks.side, : chunks.side], expected)


def published_spatial(layer: nn.Module, x: torch.Tensor, *, length: int, last: bool) -> torch.Tensor:
    """A spatial layer as the published source computes it, in plain views: only where the tokens fit."""
    b, t, h, w, c = x.shape
    s = c // length

    def chunks(tokens, fc):
        grouped = tokens.reshape(b, t, h * w // length, length, length, s).permute(0, 1, 2, 4, 3, 5)
        mixed = fc(grouped.reshape(b, t, h * w // length, length, length * s))
        return mixed.reshape(b, t, h * w // length, length, length, s).permute(0, 1, 2, 4, 3, 5).reshape(b, t, h * w, c)

    if last:
        strided = x.reshape(b, t, length, h * w // length, length, s).permute(0, 1, 4, 3, 2, 5)
        mixed = layer.mlp_h(strided.reshape(b, t, length, h * w // length, length * s))
        back = mixed.reshape(b, t, length, h * w // length, length, s).permute(0, 1, 4, 3, 2, 5).reshape(b, t, h, w, c)
        branches = [back, layer.mlp_c(x)]
    else:
        columns = chunks(x.transpose(2, 3).reshape(b, t, h * w, c), layer.mlp_h).reshape(b, t, w, h, c).transpose(2, 3)
        rows = chunks(x.reshape(b, t, h * w, c), layer.mlp_w).reshape(b, t, h, w, c)
        branches = [columns, rows, layer.mlp_c(x)]
    pooled = sum(branch.mean(dim=(1, 2, 3)) for branch in branches)
    weights = layer.reweight(pooled).reshape(b, c, len(branches)).softmax(dim=-1)
    return layer.proj(sum(weights[:, None, None, None, :, k] * branch for k, branch in enumerate(branches)))


@pytest.mark.parametrize("shape", SHAPES)
def test_at_the_trained_size_every_chunk_shape_is_the_same_network_bit_for_bit(shape):
    for temporal in ("mixed", "none"):
        plain, named = tiny(temporal=temporal).eval(), tiny(temporal=temporal, chunk_shape=shape).eval()
        x = clips() if temporal == "mixed" else clips()[:, :, 0]
        assert torch.equal(plain(x), named(x))
        kept = tiny(temporal=temporal, chunk_crop_size=CROP).eval()
        assert torch.equal(plain(x), kept(x))


@pytest.mark.parametrize(("name", "frames"), [("morphmlp_t_image", 1), ("morphmlp_s_16x4", 2)])
def test_at_224_px_every_chunk_shape_is_the_published_network_bit_for_bit(name, frames):
    published = replace(PRESETS[name].model, depths=(1, 1, 1, 1))
    logits = []
    for shape in SHAPES:
        torch.manual_seed(0)
        model = MorphMLP(replace(published, chunk_shape=shape), num_frames=frames, crop_size=224).eval()
        with torch.inference_mode():
            logits.append(model(torch.randn(1, *model.input_shape, generator=torch.Generator().manual_seed(1))))
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    for stage, blocks in enumerate(model.stage_blocks(), start=1):
        layer, side = blocks[0].fc, stage_grids(224)[stage - 1]
        x = torch.randn(1, 1, side, side, layer.proj.in_features)
        with torch.inference_mode():
            expected = published_spatial(layer, x, length=layer.chunks.length, last=stage == 4)
            torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("stage", [3, 4])
def test_at_448_px_padded_line_is_the_published_source(stage):
    """Whose tokens fit there: rows of 28 in stage 3, and chunks that stride over the frame in stage 4."""
    model = build_model("morphmlp_s_image").eval()
    layer = [model.blocks3[0].fc, model.blocks4[0].fc][stage - 3]
    layer.chunks = replace(layer.chunks, shape="padded_line")
    side = stage_grids(448)[stage - 1]
    x = torch.randn(1, 1, side, side, layer.proj.in_features)
    with torch.inference_mode():
        expected = published_spatial(layer, x, length=layer.chunks.length, last=stage == 4)
        torch.testing.assert_close(layer(x), expected)
        layer.chunks = replace(layer.chunks, shape="windows")
        assert not torch.allclose(layer(x), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 80), (96, 64), (65, 91), (33, 17), (5, 7)])
def test_a_network_takes_any_size_and_every_parameter_learns_there(height, width, shape):
    model = tiny(chunk_shape=shape, init="random_projection").train()
    x = torch.randn(2, 3, FRAMES, height, width)
    maps = model.forward_features(x)
    sides = [(height, width)]
    for _ in range(5):
        sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
    assert [tuple(one.shape[-2:]) for one in maps] == sides[2:]
    model(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("size", [256, 288])
def test_the_published_image_network_runs_at_256_and_288_px_as_windows_make_it(size):
    """Stage by stage against the loop in plain views: windows of the map, padded at its right and bottom."""
    model = build_model("morphmlp_t_image").eval()
    for stage, blocks in enumerate(model.stage_blocks(), start=1):
        layer, side = blocks[0].fc, stage_grids(size)[stage - 1]
        rows, columns = {1: (1, 14), 2: (1, 28), 3: (2, 14), 4: (7, 7)}[stage]
        x, groups = torch.randn(1, 1, side, side, layer.proj.in_features), layer.chunks.length
        bottom, right = (-(-side // rows) * rows, -(-side // columns) * columns)
        padded = torch.zeros(1, 1, bottom, right, x.shape[-1])
        padded[:, :, :side, :side] = x
        fc, y = layer.mlp_h if stage == 4 else layer.mlp_w, torch.zeros_like(padded)
        with torch.inference_mode():
            for top, left in product(range(0, bottom, rows), range(0, right, columns)):
                window = padded[0, 0, top : top + rows, left : left + columns].reshape(rows * columns, groups, -1)
                mixed = fc(window.transpose(0, 1).reshape(groups, -1)).reshape(groups, rows * columns, -1)
                y[0, 0, top : top + rows, left : left + columns] = mixed.transpose(0, 1).reshape(rows, columns, -1)
            found = mix_chunks(x, fc, chunks=layer.chunks, groups=groups)
        torch.testing.assert_close(found, y[:, :, :side, :side])


def test_padded_tokens_are_in_no_mean():
    """With a bias the layers give something for zeros: it must reach neither the weights of branches nor the output."""
    torch.manual_seed(0)
    layer = SpatialMorphFC(16, chunks=Chunks(length=8, stage=1, side=8))
    nn.init.constant_(layer.mlp_w.bias, 5.0)
    nn.init.constant_(layer.mlp_h.bias, 5.0)
    pooled = []
    layer.reweight.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    x = torch.randn(1, 1, 9, 9, 16)
    layer(x)
    rows = mix_chunks(x, layer.mlp_w, chunks=layer.chunks, groups=8)
    columns = mix_chunks(x, layer.mlp_h, chunks=layer.chunks, groups=8, by_columns=True)
    assert rows.shape == columns.shape == x.shape
    means = [branch.reshape(81, 16).mean(dim=0) for branch in (rows, columns, layer.mlp_c(x))]
    torch.testing.assert_close(pooled[0][0], sum(means))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [40, 64, 65, 80, 96])
def test_padding_costs_what_is_counted(size, shape):
    model = replace(TINY, chunk_shape=shape)
    sizes = {"num_frames": FRAMES, "crop_size": CROP, "view_size": size}
    planned, counted = planned_cost(model, **sizes), model_cost(model, **sizes)
    assert planned.params == counted.params == planned_cost(TINY, num_frames=FRAMES, crop_size=CROP).params
    assert planned.gmacs == pytest.approx(counted.gmacs, rel=1e-12)


def test_windows_at_512_px_take_a_twentieth_more_than_a_layer_without_padding():
    """Published S, as estimated by hand: 9, 31, 31 and 72 % more tokens in the layers over chunks, 5 % of it all."""
    chosen = PRESETS["morphmlp_s_image"]
    sizes = {"num_frames": 1, "crop_size": 224}
    at_224, at_512 = (planned_cost(chosen.model, **sizes, view_size=size).gmacs for size in (224, 512))
    assert at_512 / (at_224 * (512 / 224) ** 2) == pytest.approx(1.05, abs=0.01)
    extra = [
        chunks.count(grid, grid) * chunks.length / grid**2 - 1
        for chunks, grid in zip(PUBLISHED, stage_grids(512), strict=True)
    ]
    assert extra == pytest.approx([0.09, 0.31, 0.31, 0.72], abs=0.006)


def test_a_forward_at_288_px_counts_as_planned():
    with torch.device("meta"):
        model = build_model("morphmlp_t_image").eval()
        view = torch.empty(1, 3, 288, 288)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(view)
    planned = planned_cost(model.config, num_frames=1, crop_size=224, view_size=288).gmacs
    assert counter.get_total_flops() / 2e9 == pytest.approx(planned, rel=0.02)  # which has norms, too


@pytest.mark.parametrize("shape", ["padded_line", "padded_side"])
def test_padding_by_name_trains_on_crops_that_no_chunk_length_divides(shape):
    model = MorphMLP(replace(TINY, chunk_shape=shape), num_frames=FRAMES, crop_size=72)
    assert model(torch.randn(2, 3, FRAMES, 72, 72)).shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"test.crop_size": 48, "test.short_edge": 40},
            ["test.short_edge: is 40, smaller than the test's crops of 48; make it at least as large"],
        ),
        (
            {"model.chunk_shape": "padded_line", "model.chunk_crop_size": 32},
            ["model.chunk_crop_size is of windows alone; leave it out with chunk_shape: padded_line"],
        ),
        (
            {"clip.crop_size": 48, "clip.short_edge": 48, "model.chunk_lengths": [9, 8, 4, 1], "test.crop_size": 64}
            | {"model.embed_dims": [18, 16, 32, 32], "model.chunk_shape": "padded_side"},
            [],
        ),
        (
            {"clip.crop_size": 48, "clip.short_edge": 48, "model.chunk_lengths": [9, 6, 1, 1], "test.crop_size": 64}
            | {"model.embed_dims": [18, 18, 32, 32]},
            [
                "model.chunk_lengths: stage 1: 9 consecutive tokens are no rectangle on 12x12, so that windows can't "
                "keep their shape on 16x16 (test.crop_size 64); choose a divisor or a multiple of the side, or another "
                "model.chunk_shape"
            ],
        ),
        (
            {"clip.crop_size": 256, "clip.short_edge": 256, "model.chunk_lengths": [8, 28, 14, 1]}
            | {"model.embed_dims": [16, 56, 28, 32]},
            [
                "model.chunk_lengths: stage 2: chunk length 28 must divide its 1024 tokens "
                "(32x32 at clip.crop_size 256)",
                "model.chunk_lengths: stage 3: chunk length 14 must divide its 256 tokens "
                "(16x16 at clip.crop_size 256); "
                "model.chunk_crop_size: 224 keeps the shapes that chunks have there",
            ],
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line_each(changes, lines):
    if not lines:
        load_config(SMALL, changes)
        return
    with pytest.raises(ConfigError) as caught:
        load_config(SMALL, changes)
    assert list(caught.value.faults) == lines


@given(st.integers(20, 600))
@settings(max_examples=60)
def test_the_published_network_trains_on_any_crop_with_the_chunks_of_224_px(crop_size):
    published = {"embed_dims": (112, 224, 392, 784), "chunk_lengths": (14, 28, 28, 49), "crop_size": crop_size}
    assert shape_faults(**published, chunk_crop_size=224) == []
    assert shape_faults(**published, chunk_shape="padded_side") == []


def test_a_test_of_larger_crops_takes_the_same_share_of_a_frame():
    config = load_config(SMALL, {"clip.crop_size": 32, "clip.short_edge": 36, "test.crop_size": 40})
    assert (config.test_clip.crop_size, config.test_clip.short_edge) == (40, 45)
    assert config.test.in_words == "2 clips x 3 crops of 40 px"
    assert load_config(SMALL).test_clip == load_config(SMALL).clip


def test_the_scorer_of_a_test_on_larger_crops_gives_the_networks_logits_there():
    config = load_config(SMALL, {"test.crop_size": 48, "test.num_crops": 1})
    task = task_of(config)
    network = task.network().eval()
    pool = ScorerPool(num_workers=1, cpus_per_worker=torch.get_num_threads(), device="cpu", node_labels={})
    scorer = Scorer(task, network.state_dict(), pool)
    views = torch.randint(0, 256, (2, 4, 48, 48, 3), dtype=torch.uint8)
    facts = {
        "row": 0,
        "label": 0,
        "maps": b"",
        "concealed": 0,
        "retried": False,
        "cpu_s": 0.0,
        "height": 48,
        "width": 48,
        "error": "",
    }
    facts |= {"message": "", "decoder": "", "decoder_version": "", "size_bytes": None, "mtime": None}
    facts["clips"] = views.numpy().tobytes()
    rows = scorer(pa.Table.from_pylist([{name: facts[name] for name in DECODED.names}], schema=DECODED))
    found = torch.frombuffer(bytearray(rows["outcome"][0].as_py()), dtype=torch.float32).reshape(2, -1)
    with torch.inference_mode():
        torch.testing.assert_close(found, network(network_input(views, network, torch.device("cpu"))))


@pytest.mark.parametrize(
    ("there", "here", "refused"),
    [
        ({"crop": 224}, {"crop": 448}, "[1x14, 1x28, 2x14, 7x7] against [1x14, 1x28, 1x28, line]"),
        ({"crop": 224}, {"crop": 288, "chunk_crop_size": 224}, None),
        ({"crop": 224}, {"crop": 448, "chunk_shape": "padded_line"}, None),
        ({"crop": 224, "chunk_shape": "padded_side"}, {"crop": 224}, None),
        (
            {"crop": 256, "chunk_shape": "padded_line"},
            {"crop": 224},
            "[padded_line, padded_line, padded_line, padded_line",
        ),
        ({"crop": 256, "chunk_shape": "padded_line"}, {"crop": 256, "chunk_shape": "padded_side"}, "padded_side]"),
    ],
)
def test_weights_whose_chunks_have_another_shape_are_refused(there, here, refused):
    chosen: Preset = PRESETS["morphmlp_s_16x4"]

    def described(crop, **changes):
        return describe_model(replace(chosen.model, **changes), num_frames=16, crop_size=crop)

    found = differences(described(**there), described(**here))
    assert bool(found) == (refused is not None)
    assert refused is None or refused in found[0]
