"""What the schema refuses, and that it names every fault at once by its dotted field."""

import dataclasses
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.config.loading import LATER_FIELDS, config_from_mapping, flat_fields, read_yaml, with_overrides
from morphmlp.errors import ConfigError

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"


def faults_of(overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(SMALL, overrides)
    return sorted(caught.value.faults)


def test_the_small_experiment_is_valid():
    assert load_config(SMALL).model.depths == (1, 1, 2, 1)


def test_a_configuration_cannot_be_changed():
    config = load_config(SMALL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.optim.lr = 1.0


def test_all_faults_of_all_sections_are_told_at_once():
    faults = faults_of(
        {
            "model.depht": [1, 1, 1, 1],
            "model.mlp_ratio": -1.0,
            "clip.num_frames": "16",
            "clip.short_edge": 20,
            "augment.scale": [0.9, 0.5],
            "augment.aspect": [2.0, 1.0],
            "optim.lr": 0,
            "test.num_crops": 2,
            "tset": {},
        }
    )
    assert faults == [
        "augment.aspect is [2.0, 1.0]; the first number must not exceed the second",
        "augment.scale is [0.9, 0.5]; the first number must not exceed the second",
        "clip.num_frames: input should be a valid integer, got '16'; write a whole number",
        "model.depht: unknown field; did you mean model.depths?",
        "model.mlp_ratio: input should be greater than 0, got -1.0",
        "optim.lr: input should be greater than 0, got 0",
        "test.num_crops: input should be 1 or 3, got 2",
        "tset: unknown field; did you mean test?",
    ]


def test_a_crop_larger_than_the_scaled_frame_is_refused():
    assert faults_of({"clip.short_edge": 20}) == [
        "clip.short_edge is 20, smaller than crop_size 32; make it at least as large"
    ]


def test_a_crop_cannot_cover_more_than_the_frame():
    assert faults_of({"augment.scale": [0.5, 1.5]}) == [
        "augment.scale ends at 1.5; a crop can't cover more than 1.0 of the frame"
    ]


def test_all_faults_between_sections_are_told_at_once():
    faults = faults_of(
        {"model.chunk_lengths": [8, 8, 3, 1], "optim.warmup_epochs": 4, "optim.min_lr": 1.0, "cluster.num_workers": 5}
    )
    assert [fault.split(":")[0] for fault in faults] == [
        "cluster.num_workers",
        "model.chunk_lengths",
        "model.chunk_lengths",
        "optim.min_lr",
        "optim.warmup_epochs",
    ]
    assert "use at most 4 workers" in faults[0]


def test_a_micro_batch_larger_than_the_step_is_refused():
    (fault,) = faults_of({"train.micro_batch_size": 9})
    assert fault.startswith("train.micro_batch_size: 9 is more than train.global_batch_size 8")


def test_micro_batches_per_step_round_up():
    assert load_config(SMALL, {"train.micro_batch_size": 3}).train.micro_batches_per_step == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train.epochs", 1.5),
        ("train.epochs", 3.0),
        ("train.epochs", True),
        ("train.epochs", 0),
        ("optim.lr", "0.1"),
        ("optim.lr", float("nan")),
        ("optim.lr", float("inf")),
        ("optim.lr", None),
        ("name", 7),
        ("model.depths", [1, 1, 1]),
        ("model.depths", [1, 1, 1, 1, 1]),
        ("model.depths", 4),
        ("augment.flip", 1.1),
        ("augment.erase", -0.1),
        ("clip.channel_order", "grb"),
        ("clip.interpolation", "random"),
        ("clip.pixel_mean", [0.5, 0.5]),
        ("clip.pixel_std", [0.2, 0.0, 0.2]),
        ("augment.fill", [124, 116, 256]),
        ("augment.erase_on", "crop"),
        ("mixing.prob", 1.1),
        ("optim.schedule", "linear"),
        ("optim.clip_norm", 0.0),
        ("train.copies", 0),
        ("test.weights", "ema"),
        ("mixing.label_smoothing", 1.0),
        ("model.temporal", "sometimes"),
        ("clip", None),
        ("ingest.node_labels", {"rack": 1}),
        ("train.precision", "fp8"),
        ("train.ema_decay", 1.0),
        ("train.ema_decay", -0.1),
        ("train.class_weights", "even"),
        ("train.class_weights", [1.0, 0.0, 1.0, 1.0]),
        ("train.early_stopping", {"min_delta": 1.0}),
        ("train.early_stopping", {"epochs": 0}),
        ("train.early_stopping", {"epochs": 1, "min_delta": -1.0}),
        ("train.freeze", "stem"),
        ("train.freeze", ["stage5"]),
        ("optim.layer_decay", 0.0),
        ("optim.layer_decay", 1.1),
        ("optim.head_lr_factor", 0.0),
        ("execution.max_skipped_steps", 0),
        ("execution.compile", "model"),
        ("execution.kernels", "cuda"),
        ("checkpoint.every_steps", 0),
        ("checkpoint.every_minutes", 0.0),
        ("checkpoint.keep_last", 0),
        ("cluster.max_failures", -1),
        ("cluster.max_preemptions", -1),
        ("cluster.wait_for_workers_s", 0.0),
        ("cluster.gpu_hour_price", -1.0),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_and_not_converted(field, value):
    faults = faults_of({field: value})
    assert len(faults) == 1
    assert faults[0].startswith(f"{field}")
    assert ": " in faults[0]


WORD_OR_STAGES = "input should be 'auto', 'on' or 'off' or a valid array, got"


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("cluster.num_workers", 0, ": input should be greater than 0, got 0"),
        ("cluster.num_workers", "2", ": input should be a valid integer or an object, got '2'; write a whole number"),
        ("cluster.num_workers", {"min": 2}, ".max: is missing and has no default"),
        ("cluster.num_workers", {"min": 0, "max": 2}, ".min: input should be greater than 0, got 0"),
        ("cluster.num_workers", {"min": 3, "max": 2}, ".min is 3, more than max 2"),
        ("cluster.num_workers", {"min": 1, "max": 2, "step": 1}, ".step: unknown field"),
        ("execution.activation_checkpointing", "some", f": {WORD_OR_STAGES} 'some'"),
        ("execution.activation_checkpointing", 1, f": {WORD_OR_STAGES} 1"),
        ("execution.activation_checkpointing", [1, 0], ".1: input should be greater than or equal to 1, got 0"),
        ("execution.activation_checkpointing", [5], ".0: input should be less than or equal to 4, got 5"),
    ],
)
def test_a_field_of_several_forms_has_one_fault_in_the_words_of_the_form_that_was_meant(field, value, fault):
    assert faults_of({field: value}) == [f"{field}{fault}"]


def test_stages_to_recompute_are_read():
    config = load_config(SMALL, {"execution.activation_checkpointing": [1, 4]})
    assert config.execution.activation_checkpointing == (1, 4)


def test_the_most_workers_of_a_range_must_have_a_micro_batch_each():
    assert load_config(SMALL, {"cluster.num_workers": {"min": 2, "max": 4}}).cluster.num_workers.max == 4
    (fault,) = faults_of({"cluster.num_workers": {"min": 2, "max": 5}})
    assert fault.startswith("cluster.num_workers: 5 workers share 4 micro-batches a step")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"weights": None}, "start_from.weights: input should be a valid string, got None"),
        ({"inflate": "linear"}, "start_from.inflate: input should be 'repeat' or 'centre', got 'linear'"),
        ({"sha256": "A" * 64}, f"start_from.sha256: string should match pattern '^[0-9a-f]{{64}}$', got '{'A' * 64}'"),
        ({"replace_head": "yes"}, "start_from.replace_head: input should be a valid boolean, got 'yes'; write true"),
        (
            {"class_order": "order.txt", "replace_head": True},
            "start_from.class_order names the rows of a head that replace_head gives up; choose one of them",
        ),
        ({"class_order_sha256": "a" * 64}, "start_from.class_order_sha256 is given without class_order"),
        ({"layers": "all"}, "start_from.layers: unknown field"),
    ],
)
def test_options_of_starting_weights_that_cannot_be_are_named(fields, fault):
    given = {f"start_from.{name}": value for name, value in {"weights": "a.pth", **fields}.items()}
    assert faults_of(given) == [fault]


def test_starting_weights_need_a_file():
    assert faults_of({"start_from.replace_head": True}) == ["start_from.weights: is missing and has no default"]


def test_a_whole_number_is_good_enough_for_a_real_one():
    assert load_config(SMALL, {"optim.weight_decay": 0}).optim.weight_decay == 0.0


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (
            {"clip.sampling": "segments"},
            "clip.frame_stride is 2; with sampling segments it must be null",
        ),
        ({"clip.frame_stride": None}, "clip.frame_stride is None; with sampling dense it must be a number"),
        (
            {"augment.on": "worker", "augment.short_edge": None},
            "augment.short_edge is null; with on: worker whole frames travel, so it must bound their size",
        ),
        (
            {"augment.rand_augment": "rand-m70-n4-inc1"},
            "augment.rand_augment is 'rand-m70-n4-inc1': m (the magnitude) must be there, 0 to 10",
        ),
        (
            {"augment.erase": 0.25, "clip.pixel_mean": [0.485, 0.456, 0.406]},
            "augment.erase_on: pixels have noise for clip.pixel_mean 0.45 and clip.pixel_std 0.225 only; with other "
            "ones write normalised",
        ),
        ({"optim.warmup_lr": 1.0}, "optim.warmup_lr: 1.0 is more than optim.lr 0.001"),
        ({"ingest.retry_with": "pyav"}, "ingest.retry_with is pyav, as decoder is; name another one"),
        (
            {"ingest.clip_cache": "s3://bucket/clips"},
            "ingest.clip_cache is 's3://bucket/clips'; name a folder on a local disk or on one that nodes have mounted",
        ),
    ],
)
def test_fields_of_a_section_that_contradict_each_other_are_named(overrides, fault):
    assert faults_of(overrides) == [fault]


@pytest.mark.parametrize("policy", ["rand-m7-n4-mstd0.5-inc1", "rand-m9-n2-inc1", "rand-n1-m0-inc1", "rand-m9-inc1"])
def test_a_policy_of_rand_augment_is_read(policy):
    assert load_config(SMALL, {"augment.rand_augment": policy}).augment.rand_augment == policy


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        ("augmix-m3", "must begin with `rand-`"),
        ("rand-m7-n4-q2-inc1", "'q2' is none of m, n, mstd, inc"),
        ("rand-m7-m8-n4-inc1", "given twice"),
        ("rand-n4-inc1", "m (the magnitude) must be there"),
        ("rand-m7-n0-inc1", "n (the number of operations)"),
        ("rand-m7-n1.5-inc1", "n (the number of operations)"),
        ("rand-m7-n4-mstd0.5", "end it with inc1"),
    ],
)
def test_a_policy_of_rand_augment_that_cannot_be_used_says_why(policy, fault):
    (line,) = faults_of({"augment.rand_augment": policy})
    assert line.startswith(f"augment.rand_augment is {policy!r}: ")
    assert fault in line


FIELDS_WITHOUT_DEFAULT = [
    name
    for name in flat_fields(load_config(SMALL))
    if name.split(".")[0] not in ("execution", "checkpoint", "ingest", "cluster", "record", "start_from")
    and name not in (*LATER_FIELDS, "train.seed", "train.max_steps", "test.single_crop", "augment.on")
]


@pytest.mark.parametrize("field", FIELDS_WITHOUT_DEFAULT)
def test_a_field_that_defines_the_result_must_be_in_the_file(field):
    content = read_yaml(SMALL)
    *sections, leaf = field.split(".")
    place = content
    for section in sections:
        place = place[section]
    del place[leaf]
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(content)
    assert caught.value.faults == (f"{field}: is missing and has no default",)


def test_operational_sections_may_be_left_out_or_given_in_part():
    config = config_from_mapping(with_overrides(read_yaml(SMALL), {"ingest.decoder": "decord"}))
    assert (config.ingest.decoder, config.ingest.image_decoder) == ("decord", "simplejpeg")
    assert config.cluster.device == "auto"


def test_a_network_frozen_as_a_whole_is_refused():
    everything = ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert faults_of({"train.freeze": everything}) == [
        "train.freeze names every part, which leaves nothing to train; leave one of them out"
    ]
    assert load_config(SMALL, {"train.freeze": "backbone"}).train.frozen_parts == set(everything) - {"head"}


def test_each_class_needs_a_weight():
    assert faults_of({"train.class_weights": [1.0, 2.0]}) == [
        "train.class_weights: has 2 weights for 4 classes (model.num_classes); give one to each, in label order, or "
        "write balanced"
    ]


def test_a_single_validation_does_not_end_a_run():
    overrides = {"train.early_stopping": {"epochs": 2}, "execution.validate_every_epochs": 3}
    (fault,) = faults_of(overrides)
    assert fault.startswith("train.early_stopping.epochs: 2 is less than execution.validate_every_epochs 3")
    assert load_config(SMALL, {**overrides, "train.early_stopping": {"epochs": 3}}).train.early_stopping.epochs == 3


def test_an_image_network_takes_clips_of_one_frame():
    (fault,) = faults_of({"model.temporal": "none"})
    assert fault.startswith("clip.num_frames: is 4; with model.temporal: none the network takes one frame")
    one_frame = {"model.temporal": "none", "clip.num_frames": 1}
    assert load_config(SMALL, one_frame).model.temporal == "none"


IN_STEPS = {"train.epochs": None, "train.steps": 100, "optim.warmup_epochs": None, "optim.warmup_steps": 10}


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        ({"train.epochs": None}, ["train.epochs: is missing and has no default"]),
        ({"train.steps": 9}, ["train.steps is 9 next to epochs 3; keep one, and set the other to null"]),
        ({"optim.warmup_epochs": None}, ["optim.warmup_epochs: is missing and has no default"]),
        ({"optim.warmup_steps": 1}, ["optim.warmup_steps is 1 next to warmup_epochs 1.0; keep one"]),
        (
            {"optim.warmup_epochs": None, "optim.warmup_steps": 1},
            ["optim.warmup_steps: is 1; a length in epochs (train.epochs) takes optim.warmup_epochs instead"],
        ),
        (
            {"execution.validate_every_steps": 10, "train.early_stopping": {"steps": 10}},
            [
                "train.early_stopping.steps: is 10; a length in epochs (train.epochs) takes "
                "train.early_stopping.epochs instead",
                "execution.validate_every_steps: is 10; a length in epochs (train.epochs) takes "
                "execution.validate_every_epochs instead",
            ],
        ),
        ({**IN_STEPS, "optim.warmup_steps": None}, ["optim.warmup_steps: is missing and has no default"]),
        (
            {**IN_STEPS, "optim.warmup_epochs": 1, "optim.warmup_steps": None},
            ["optim.warmup_epochs: is 1.0; a length in steps (train.steps) takes optim.warmup_steps instead"],
        ),
        (
            {**IN_STEPS, "execution.validate_every_epochs": 2, "checkpoint.every_epochs": 3},
            [
                "execution.validate_every_epochs: is 2; a length in steps (train.steps) takes "
                "execution.validate_every_steps instead",
                "checkpoint.every_epochs: is 3; a length in steps (train.steps) takes checkpoint.every_steps instead",
            ],
        ),
        (
            {**IN_STEPS, "optim.schedule": "deit"},
            ["optim.schedule: deit changes with epochs; a length in steps (train.steps) takes steps, cosine or poly"],
        ),
        ({**IN_STEPS, "optim.warmup_steps": 101}, ["optim.warmup_steps: 101 is more than train.steps 100"]),
        ({**IN_STEPS, "train.early_stopping": {}}, ["train.early_stopping.epochs: is missing and has no default"]),
        (
            {**IN_STEPS, "train.early_stopping": {"steps": 20}, "execution.validate_every_steps": 30},
            [
                "train.early_stopping.steps: 20 is less than execution.validate_every_steps 30: one validation could "
                "end the run; wait for at least as many"
            ],
        ),
        ({"optim.schedule": "poly"}, ["optim.power is None; with schedule poly it must be a number"]),
        ({"optim.power": 0.9}, ["optim.power is 0.9; with schedule steps it must be null"]),
    ],
)
def test_whatever_counts_goes_by_the_unit_of_the_length(overrides, faults):
    assert faults_of(overrides) == sorted(faults)


@pytest.mark.parametrize(
    "more", [{}, {"checkpoint.every_epochs": None}, {"train.early_stopping": {"steps": 50}}, {"train.max_steps": 5}]
)
def test_a_length_may_be_in_steps(more):
    train = load_config(SMALL, {**IN_STEPS, **more}).train
    assert (train.unit, train.length) == ("step", 100)
