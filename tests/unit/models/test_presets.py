"""The named variants: all build, under the published parameter names, and unknown ones are refused."""

import pytest
import torch

from morphmlp.errors import ConfigError
from morphmlp.models import build_model, model_names
from morphmlp.models.presets import preset


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build_model(name).state_dict().items()}


def expected_shapes(depths: tuple[int, ...], *, classes: int, wide_time: bool) -> dict[str, tuple[int, ...]]:
    """The published state dict, written out from its table."""
    widths = (112, 224, 392, 784)

    def pair(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}

    table: dict[str, tuple[int, ...]] = {}
    for number, shape in (("1", (56, 3, 3, 3, 3)), ("2", (112, 56, 1, 3, 3))):
        table |= pair(f"patch_embed1.proj{number}", *shape) | pair(f"patch_embed1.norm{number}", shape[0])
        table |= {f"patch_embed1.norm{number}.running_{kind}": shape[:1] for kind in ("mean", "var")}
        table[f"patch_embed1.norm{number}.num_batches_tracked"] = ()
    for k in (2, 3, 4):
        table |= pair(f"patch_embed{k}.proj", widths[k - 1], widths[k - 2], 1, 3, 3)
        table |= pair(f"patch_embed{k}.norm", widths[k - 1])
    for k, (c, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        time = 448 if wide_time and k == 3 else c
        branches = 2 if k == 4 else 3
        for i in range(depth):
            block = f"blocks{k}.{i}"
            for norm in ("norm1", "t_norm1", "norm2"):
                table |= pair(f"{block}.{norm}", c)
            table |= pair(f"{block}.t_fc.mlp_t", time, time) | pair(f"{block}.t_fc.proj", c, c)
            for fc in ("mlp_h", "mlp_c", "proj", *(["mlp_w"] if k < 4 else [])):
                table |= pair(f"{block}.fc.{fc}", c, c)
            table |= pair(f"{block}.fc.reweight.fc1", c // 4, c) | pair(
                f"{block}.fc.reweight.fc2", branches * c, c // 4
            )
            table |= pair(f"{block}.mlp.fc1", 3 * c, c) | pair(f"{block}.mlp.fc2", c, 3 * c)
    return table | pair("norm", 784) | pair("head", classes, 784)


@pytest.mark.parametrize(
    ("name", "depths", "entries", "classes", "wide_time"),
    [
        ("morphmlp_s_16x4", (3, 4, 9, 3), 518, 400, False),
        ("morphmlp_s_32x4", (3, 4, 9, 3), 518, 400, True),
        ("morphmlp_b_16x4", (4, 6, 15, 4), 776, 400, False),
        ("morphmlp_b_32x4", (4, 6, 15, 4), 776, 400, True),
        ("morphmlp_b_32_ssv2", (4, 6, 15, 4), 776, 174, True),
    ],
)
def test_names_and_shapes_are_those_of_the_published_checkpoints(name, depths, entries, classes, wide_time):
    found = shapes(name)
    assert len(found) == entries
    assert found == expected_shapes(depths, classes=classes, wide_time=wide_time)


def test_sixteen_and_thirty_two_frames_differ_in_one_layer_of_stage_three_only():
    short, long = shapes("morphmlp_s_16x4"), shapes("morphmlp_s_32x4")
    assert short.keys() == long.keys()
    different = {name for name in short if short[name] != long[name]}
    assert different == {f"blocks3.{i}.t_fc.mlp_t.{kind}" for i in range(9) for kind in ("weight", "bias")}


@pytest.mark.parametrize("name", model_names())
def test_every_variant_builds(name):
    with torch.device("meta"):
        model = build_model(name)
        assert model(torch.empty(2, *model.input_shape)).shape == (2, preset(name).model.num_classes)


@pytest.mark.parametrize(
    ("name", "classes", "drop_path_rate"),
    [
        ("morphmlp_s_16x4", 400, 0.1),
        ("morphmlp_b_32x4", 400, 0.3),
        ("morphmlp_s_16_ssv1", 174, 0.3),
        ("morphmlp_b_16_ssv1", 174, 0.5),
        ("morphmlp_s_32_ssv2", 174, 0.3),
        ("morphmlp_b_32_ssv2", 174, 0.6),
        ("morphmlp_l_image", 1000, 0.4),
    ],
)
def test_variants_carry_their_data_sets_classes_and_drop_path(name, classes, drop_path_rate):
    assert (preset(name).model.num_classes, preset(name).model.drop_path_rate) == (classes, drop_path_rate)


def test_arguments_replace_what_is_published():
    with torch.device("meta"):
        model = build_model("morphmlp_s_16x4", num_classes=7, num_frames=32, crop_size=448, drop_path_rate=0.2)
    assert model.head.out_features == 7
    assert model.input_shape == (3, 32, 448, 448)
    assert model.blocks4[-1].drop_path_rate == pytest.approx(0.2)


def test_an_unknown_name_is_refused_with_the_names_that_exist():
    with pytest.raises(ConfigError, match="'morphmlp_xl' is unknown") as caught:
        build_model("morphmlp_xl")
    assert all(name in str(caught.value) for name in model_names())
