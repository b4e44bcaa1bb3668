"""The section of segmentation: what files leave out, what must agree, and that it defines the result."""

from pathlib import Path

import pytest

from morphmlp.config import config_from_mapping, load_config, with_overrides
from morphmlp.config.loading import changed_fields, config_to_yaml, fingerprint, flat_fields, read_yaml
from morphmlp.config.segmentation import SegmentationTestConfig
from morphmlp.errors import ConfigError
from morphmlp.tuning.space.space import Assembly

SMALL = Path(__file__).parents[1] / "small_segmentation.yaml"
CLASSIFICATION = SMALL.with_name("small_experiment.yaml")
SECTION = read_yaml(SMALL)["segmentation"]
OTHER_RESULT = {
    "backbone": "resnet50",
    "decoder": "upernet",
    "decoder_channels": 32,
    "dropout": 0.0,
    "auxiliary_weight": 0.4,
    "loss_over": "valid_pixels",
    "long_edge": 72,
    "resize_ratio": [0.75, 1.5],
    "category_limit": 1.0,
    "flip": 0.0,
    "photometric": False,
    "test.mode": "slide",
    "test.stride": 24,
    "test.scales": [0.5, 1.0],
    "test.flip": True,
    "test.size_divisor": None,
}


def in_section(fields):
    return {f"segmentation.{name}": value for name, value in fields.items()}


CHANGES = {
    **{field: ({}, {f"segmentation.{field}": value}) for field, value in OTHER_RESULT.items()},
    "auxiliary_weight": tuple(in_section({"decoder": "upernet", "auxiliary_weight": weight}) for weight in (0.0, 0.4)),
    "test.mode": ({}, {"segmentation.test.mode": "slide", "segmentation.test.stride": 16}),
    "test.stride": tuple({"segmentation.test": {"mode": "slide", "stride": stride}} for stride in (16, 24)),
}


def faults_of(overrides, file=SMALL):
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    return sorted(caught.value.faults)


def test_what_belongs_to_classification_is_filled_in_and_a_resolved_file_reads_back_equal(tmp_path):
    config = load_config(SMALL)
    assert config.augment.repeats == config.test.num_clips == config.test.num_crops == 1
    assert config.mixing.mixup == config.mixing.cutmix == config.mixing.label_smoothing == 0
    assert config.augment.flip == config.augment.erase == 0
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(config_to_yaml(config))
    assert load_config(resolved) == config


@pytest.mark.parametrize("field", OTHER_RESULT)
def test_a_field_of_the_section_defines_the_result(field):
    before, after = (load_config(SMALL, overrides) for overrides in CHANGES[field])
    assert fingerprint(after) != fingerprint(before)
    assert any(line.startswith(f"segmentation.{field}: ") for line in changed_fields(before, after))


def test_every_field_of_the_section_is_in_the_table_and_panels_alone_are_operational():
    assert {f"segmentation.{name}" for name in (*OTHER_RESULT, "test.panels")} == {
        name for name in flat_fields(load_config(SMALL)) if name.startswith("segmentation.")
    }
    before, after = load_config(SMALL), load_config(SMALL, {"segmentation.test.panels": 2})
    assert (fingerprint(before), changed_fields(before, after)) == (fingerprint(after), [])


@pytest.mark.parametrize("field", SECTION)
def test_a_field_of_the_section_must_be_in_the_file(field):
    content = read_yaml(SMALL)
    del content["segmentation"][field]
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(content)
    assert caught.value.faults == (f"segmentation.{field}: is missing and has no default",)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ({"segmentation": None}, "segmentation: is missing; task: segmentation needs the section"),
        (
            {"augment.flip": 0.5},
            "augment.flip: is 0.5, which belongs to classification; leave it out with task: segmentation",
        ),
        (
            {"mixing.mixup": 0.8},
            "mixing.mixup: is 0.8, which belongs to classification; leave it out with task: segmentation",
        ),
        (
            {"test.num_crops": 3},
            "test.num_crops: is 3, which belongs to classification; leave it out with task: segmentation",
        ),
        ({"augment.fliq": 0.5}, "augment.fliq: unknown field; did you mean augment.flip?"),
        ({"model.temporal": "averaged"}, "model.temporal: is averaged; with task: segmentation it must be none"),
        ({"clip.channel_order": "bgr"}, "clip.channel_order: is bgr; with task: segmentation it must be rgb"),
        (
            {"clip.interpolation": "bicubic"},
            "clip.interpolation: is bicubic; with task: segmentation it must be bilinear",
        ),
        (
            {"train.class_weights": "balanced"},
            "train.class_weights: is balanced; with task: segmentation give each class a weight",
        ),
        ({"test.crop_size": 64}, "test.crop_size: is 64; with task: segmentation see segmentation.test"),
        ({"test.single_crop": "left"}, "test.single_crop: is left; with task: segmentation see segmentation.test"),
        (
            {"segmentation.auxiliary_weight": 0.4},
            "segmentation.auxiliary_weight is 0.4; Semantic FPN has no auxiliary head, so it must be 0",
        ),
        (
            {"segmentation.decoder": "upernet", "segmentation.decoder_channels": 15},
            "segmentation.decoder_channels is 15; UPerNet's auxiliary head has half as many, so it must be even",
        ),
        (
            {"segmentation.resize_ratio": [2.0, 0.5]},
            "segmentation.resize_ratio is [2.0, 0.5]; the first number must not exceed the second",
        ),
        (
            {"segmentation.category_limit": 0.0},
            "segmentation.category_limit is 0, which no crop stays below; write 1 to take any crop",
        ),
        (
            {"segmentation.long_edge": 35},
            "segmentation.long_edge: is 35, smaller than clip.short_edge 36; make it at least as large",
        ),
        (
            {"segmentation.test.mode": "slide"},
            "segmentation.test.stride is None; with mode slide it must be a number of pixels",
        ),
        ({"segmentation.test.stride": 16}, "segmentation.test.stride is 16; with mode whole it must be null"),
        (
            {"segmentation.test.mode": "slide", "segmentation.test.stride": 33},
            "segmentation.test.stride: is 33, more than the windows' 32 px (clip.crop_size), which would leave gaps; "
            "make it at most as large",
        ),
        ({"segmentation.test.scales": []}, "segmentation.test.scales is []; name one or more different ones"),
        (
            {"segmentation.decoder": "upernet", "train.micro_batch_size": 1},
            "train.micro_batch_size: is 1; UPerNet normalises maps pooled to 1 x 1 over the images of a micro-batch, "
            "make it 2 or more",
        ),
        (
            {"segmentation.test.scales": [1.0, 1.0]},
            "segmentation.test.scales is [1.0, 1.0]; name one or more different ones",
        ),
        (
            {"segmentation.decoder": "fpn"},
            "segmentation.decoder: input should be 'semantic_fpn' or 'upernet', got 'fpn'",
        ),
        (
            {"task": "segmentaton"},
            "task: input should be 'classification' or 'segmentation', got 'segmentaton'; did you mean 'segmentation'?",
        ),
    ],
)
def test_what_does_not_agree_is_named_with_what_would_be_right(overrides, fault):
    assert fault in faults_of(overrides)


def test_the_section_belongs_to_its_task():
    assert faults_of(in_section(SECTION), CLASSIFICATION) == [
        "segmentation: is given, and task is classification; write task: segmentation, or leave it out"
    ]


def test_trials_of_a_sweep_are_filled_in_alike():
    content = read_yaml(SMALL)
    point = {"optim.lr": 0.002, "segmentation.dropout": 0.2}
    assert Assembly(content).config(point) == config_from_mapping(with_overrides(content, point))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "whole image"),
        ({"mode": "slide", "stride": 341}, "windows every 341 px"),
        ({"scales": (0.5, 1.0), "flip": True}, "whole image, 2 scales, mirrored too"),
        ({"scales": (1.5,)}, "whole image, scale 1.5"),
        ({"size_divisor": None}, "whole image, in proportion"),
    ],
)
def test_how_an_image_is_seen_has_words(fields, words):
    assert SegmentationTestConfig(**fields).in_words == words


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, False),
        # On maps of 12 x 12 tokens 8 consecutive ones are no rectangle, whose shape other maps could have.
        ({"clip.crop_size": 96, "clip.short_edge": 96}, True),
        ({"clip.crop_size": 96, "clip.short_edge": 96, "model.chunk_shape": "padded_line"}, False),
        ({"clip.crop_size": 96, "clip.short_edge": 96, "model.chunk_crop_size": 32}, False),
        ({"clip.crop_size": 96, "clip.short_edge": 96, "segmentation.backbone": "resnet50"}, False),
    ],
)
def test_chunks_that_whole_images_cant_have_are_refused_before_training(changes, refused):
    if not refused:
        load_config(SMALL, changes)
        return
    with pytest.raises(ConfigError, match=r"model.chunk_lengths: stage 2: 8 .* whole images \(task: segmentation\)"):
        load_config(SMALL, changes)
