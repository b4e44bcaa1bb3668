"""YAML in, faults or a frozen experiment out, and back again."""

import pickle
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.config import config_from_mapping, load_config, with_overrides
from morphmlp.config.loading import (
    changed_fields,
    config_to_yaml,
    fingerprint,
    flat_fields,
    parse_yaml,
    read_yaml,
)
from morphmlp.errors import ConfigError

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"

# Another valid value for every field; a new field must be added here.
OTHER_RESULT = {
    "dataset": "my own videos",
    "model.depths": [1, 1, 1, 1],
    "model.embed_dims": [16, 16, 32, 64],
    "model.chunk_lengths": [4, 8, 4, 1],
    "model.mlp_ratio": 3.0,
    "model.drop_path_rate": 0.2,
    "model.num_classes": 5,
    "model.temporal": "averaged",
    "model.init": "published",
    "clip.sampling": "dense_decord",
    "clip.num_frames": 8,
    "clip.frame_stride": 1,
    "clip.crop_size": 31,
    "clip.short_edge": 40,
    "clip.channel_order": "bgr",
    "clip.interpolation": "bicubic",
    "clip.centre_rounding": "even",
    "clip.pixel_mean": [0.485, 0.456, 0.406],
    "clip.pixel_std": [0.229, 0.224, 0.225],
    "augment.rand_augment_on": "crop",
    "augment.fill": [124, 116, 104],
    "augment.interpolation": "random",
    "augment.erase_on": "normalised",
    "mixing.prob": 0.5,
    "mixing.switch_prob": 0.0,
    "optim.warmup_lr": 1e-6,
    "optim.schedule": "deit",
    "train.copies": 3,
    "test.weights": "raw",
    "augment.repeats": 1,
    "augment.short_edge": 40,
    "augment.rand_augment": "rand-m7-n4-mstd0.5-inc1",
    "augment.scale": [0.6, 1.0],
    "augment.aspect": [0.75, 1.3],
    "augment.flip": 0.0,
    "augment.erase": 0.25,
    "mixing.mixup": 0.0,
    "mixing.cutmix": 0.5,
    "mixing.label_smoothing": 0.0,
    "optim.lr": 0.002,
    "optim.min_lr": 0.0,
    "optim.warmup_epochs": 0.5,
    "optim.weight_decay": 0.1,
    "optim.clip_norm": 1.0,
    "train.epochs": 4,
    "train.global_batch_size": 16,
    "train.micro_batch_size": 4,
    "train.precision": "fp16",
    "train.ema_decay": 0.99,
    "train.freeze": ["stem", "stage1"],
    "train.class_weights": "balanced",
    "train.early_stopping": {"epochs": 5, "min_delta": 0.1, "steps": None},
    "optim.layer_decay": 0.75,
    "optim.head_lr_factor": 10.0,
    "model.branches": ["height"],
    "model.branch_sum": "plain",
    "model.group_width": 2.0,
    "model.block_order": "spatial_first",
    "model.block_skip": "standard",
    "model.chunk_shape": "padded_side",
    "model.chunk_crop_size": 64,
    "train.seed": 1,
    "train.max_steps": 10,
    "test.num_clips": 3,
    "test.num_crops": 1,
    "test.single_crop": "left",
    "test.checkpoint": "best",
    "test.crop_size": 64,
    "test.short_edge": 72,
}
OTHER_OPERATIONAL = {
    "name": "other",
    "data.train": "a.parquet",
    "data.val": "b.parquet",
    "data.test": "c.parquet",
    "execution.activation_checkpointing": [1, 2],
    "execution.compile": "blocks",
    "execution.kernels": "triton",
    "execution.validate_every_epochs": 2,
    "execution.report_every_steps": 1,
    "execution.max_skipped_steps": 1,
    "execution.ledger": True,
    "checkpoint.every_epochs": None,
    "checkpoint.every_steps": 100,
    "checkpoint.every_minutes": None,
    "checkpoint.keep_last": 3,
    "checkpoint.storage": "s3://bucket/checkpoints",
    "checkpoint.wait_for_storage_s": 60.0,
    "augment.on": "worker",
    "ingest.decoder": "decord",
    "ingest.image_decoder": "pillow",
    "ingest.decode_timeout_s": 5.0,
    "ingest.decoder_memory_mb": 8192,
    "ingest.on_broken": "fail",
    "ingest.retry_with": "torchcodec",
    "ingest.cpus": 3,
    "ingest.videos_per_task": 4,
    "ingest.object_store_mb": 100,
    "ingest.max_quarantined_share": 0.5,
    "ingest.node_labels": {"node-role": "ingest"},
    "ingest.wait_for_clips_s": 120.0,
    "ingest.decode_elsewhere": True,
    "ingest.clip_cache": "clips",
    "ingest.clip_cache_gb": 1.0,
    "cluster.num_workers": {"min": 2, "max": 4},
    "cluster.resize_check_s": 5.0,
    "cluster.device": "cpu",
    "cluster.cpus_per_worker": 2,
    "cluster.local_cpus": 8,
    "cluster.wait_for_nodes_s": 5.0,
    "cluster.wait_for_workers_s": 5.0,
    "cluster.max_failures": 0,
    "cluster.max_preemptions": 7,
    "cluster.gpu_hour_price": 2.5,
    "cluster.cpu_hour_price": 0.05,
    "cluster.storage": "elsewhere",
    "record.log_model": True,
    "record.register_as": "network-of-the-lab",
    "record.system_metrics": True,
}
IN_STEPS = {
    **{"train.epochs": None, "train.steps": 30, "optim.warmup_epochs": None, "optim.warmup_steps": 5},
    **{"optim.schedule": "poly", "optim.power": 1.0},
}
OTHER_IN_STEPS = {"train.steps": 40, "optim.warmup_steps": 6, "optim.power": 0.9}
OTHER_IN_STEPS_OPERATIONAL = {"execution.validate_every_steps": 10}
START = {"start_from.weights": "a.pth", "start_from.sha256": "a" * 64, "start_from.class_order": "order.txt"}
OTHER_START = {
    "start_from.sha256": "b" * 64,
    "start_from.inflate": "centre",
    "start_from.replace_head": True,
    "start_from.carry": "fitting",
    "start_from.class_order_sha256": "c" * 64,
    "start_from.reverse_channels": True,
    "start_from.training_state": True,
}
OTHER_START_PATHS = {"start_from.weights": "copies/a.pth", "start_from.class_order": "copies/order.txt"}
AGREEING = {"clip.crop_size": 32, "model.temporal": "mixed", "model.chunk_crop_size": None}
"""What lets the other values of all fields stand in one experiment."""
ONE_VALUE = ("task", "segmentation")
"""The section of segmentation has a table of its own."""


def faults_of(call):
    with pytest.raises(ConfigError) as caught:
        call()
    return list(caught.value.faults)


def test_every_field_is_in_the_tables_of_this_file():
    in_steps = {*OTHER_IN_STEPS, *OTHER_IN_STEPS_OPERATIONAL}
    tables = {*in_steps, *OTHER_RESULT, *OTHER_OPERATIONAL, *OTHER_START, *OTHER_START_PATHS, *ONE_VALUE}
    assert tables == set(flat_fields(load_config(SMALL, START)))


@pytest.mark.parametrize("field", OTHER_RESULT)
def test_a_field_that_defines_the_result_changes_the_fingerprint_and_is_told(field):
    before, after = load_config(SMALL), load_config(SMALL, {field: OTHER_RESULT[field]})
    assert fingerprint(after) != fingerprint(before)
    (line,) = changed_fields(before, after)
    assert line == f"{field}: {flat_fields(before)[field]} -> {OTHER_RESULT[field]}"


@pytest.mark.parametrize("field", OTHER_OPERATIONAL)
def test_an_operational_field_leaves_the_fingerprint_as_it_is(field):
    before, after = load_config(SMALL), load_config(SMALL, {field: OTHER_OPERATIONAL[field]})
    assert after != before
    assert fingerprint(after) == fingerprint(before)
    assert changed_fields(before, after) == []


@pytest.mark.parametrize("field", [*OTHER_IN_STEPS, *OTHER_IN_STEPS_OPERATIONAL])
def test_a_training_of_so_many_steps_is_another_experiment_where_a_field_defines_its_result(field):
    value = {**OTHER_IN_STEPS, **OTHER_IN_STEPS_OPERATIONAL}[field]
    before, after = load_config(SMALL, IN_STEPS), load_config(SMALL, {**IN_STEPS, field: value})
    assert after != before
    assert fingerprint(before) != fingerprint(load_config(SMALL))
    assert (fingerprint(after) != fingerprint(before)) == (field in OTHER_IN_STEPS)
    changes = [f"{field}: {flat_fields(before)[field]} -> {value}"] if field in OTHER_IN_STEPS else []
    assert changed_fields(before, after) == changes
    assert config_from_mapping(parse_yaml(config_to_yaml(after))) == after


def test_early_stopping_by_epochs_keeps_its_fingerprint():
    assert fingerprint(load_config(SMALL, {"train.early_stopping": {"epochs": 5}})) == "92684708598b"


def with_start(overrides):
    # A head is brought into order or replaced, not both; a whole state is taken as it is.
    alone = {"start_from.replace_head", "start_from.training_state"}
    drop = {"start_from.class_order": None} if alone & overrides.keys() else {}
    return load_config(SMALL, {**START, **drop}), load_config(SMALL, {**START, **drop, **overrides})


@pytest.mark.parametrize("field", OTHER_START)
def test_whatever_is_done_with_starting_weights_changes_the_fingerprint_and_is_told(field):
    before, after = with_start({field: OTHER_START[field]})
    assert fingerprint(after) != fingerprint(before)
    assert changed_fields(before, after) == [f"{field}: {flat_fields(before)[field]} -> {OTHER_START[field]}"]


@pytest.mark.parametrize("field", OTHER_START_PATHS)
def test_where_starting_weights_lie_leaves_the_fingerprint_as_it_is(field):
    before, after = with_start({field: OTHER_START_PATHS[field]})
    assert after != before
    assert fingerprint(after) == fingerprint(before)
    assert changed_fields(before, after) == []


def test_starting_from_weights_is_another_experiment_than_starting_fresh_and_one_change():
    fresh, started = load_config(SMALL), load_config(SMALL, START)
    assert fingerprint(started) != fingerprint(fresh)
    (line,) = changed_fields(fresh, started)
    assert line.startswith("start_from: None -> {'weights': 'a.pth', ")
    (line,) = changed_fields(started, fresh)
    assert line.endswith("} -> None")


def test_starting_weights_can_be_given_over_a_null():
    content = with_overrides(read_yaml(SMALL), {"start_from": None})
    config = config_from_mapping(with_overrides(content, {"start_from.weights": "a.pth"}))
    assert config.start_from.weights == "a.pth"


def test_fingerprints_are_twelve_hex_digits_that_do_not_drift():
    assert fingerprint(load_config(SMALL)) == "ea6da5bb9d86"


def test_equal_values_written_otherwise_have_one_fingerprint():
    assert fingerprint(load_config(SMALL, {"optim.lr": 0.001, "optim.warmup_epochs": 1.0})) == fingerprint(
        load_config(SMALL)
    )


@pytest.mark.parametrize(
    "overrides",
    [{}, OTHER_RESULT, OTHER_OPERATIONAL, START],
    ids=["small", "results", "operational", "starting weights"],
)
def test_a_resolved_experiment_written_as_yaml_reads_back_equal(overrides, tmp_path):
    config = load_config(SMALL, {**overrides, **AGREEING})
    (tmp_path / "again.yaml").write_text(config_to_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


TRICKY_TEXTS = st.sampled_from(
    ["1e3", "1e-3", "on", "off", "yes", "true", "null", "~", "1:30", "0x1f", "2020-01-01", ""]
)


@given(TRICKY_TEXTS | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12))
def test_any_text_survives_the_round_trip(text):
    config = load_config(SMALL, {"data.train": text, "ingest.node_labels": {"rack": text}})
    assert config_from_mapping(parse_yaml(config_to_yaml(config))) == config


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("2E5", 2e5), ("-1e-3", -1e-3), ("+1.5e+2", 150.0), ("1.0e-3", 1e-3), ("3", 3), ("-3", -3)],
)
def test_numbers_with_an_exponent_are_numbers(text, value):
    read = parse_yaml(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["1e", "e3", "1e-3s", "1.2.3", "v1e3"])
def test_what_only_looks_like_a_number_stays_text(text):
    assert parse_yaml(text) == text


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("on", "on"), ("off", "off")])
def test_only_true_and_false_are_booleans(text, value):
    assert parse_yaml(text) == value


def test_on_and_off_can_be_written_where_a_field_takes_them():
    config = load_config(SMALL, {"execution.activation_checkpointing": parse_yaml("off")})
    assert config.execution.activation_checkpointing == "off"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E+3", 1000.0),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("0x10", 16),
        (".inf", float("inf")),
        ("12:30", "12:30"),
        ("1:30.5", "1:30.5"),
        ("2026-11-28", "2026-11-28"),
        ("2026-11-28 10:00:00", "2026-11-28 10:00:00"),
        ("010", "010"),
        ("=", "="),
        ("yes", "yes"),
        ("~", None),
        ("", None),
    ],
)
def test_plain_values_are_read_as_yaml_1_2_reads_them(text, value):
    found = parse_yaml(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("name", ["2026-11-28", "12:30", "010", "1e-3", "0x10", "yes", "null", "größe"])
def test_names_that_look_like_something_else_come_back_from_a_file(name, tmp_path):
    config = load_config(SMALL, {"name": name})
    (tmp_path / "e.yaml").write_text(config_to_yaml(config))
    assert load_config(tmp_path / "e.yaml") == config


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "lr: 1e-3",
            "lr: '1,0e-3'",
            "optim.lr: input should be a valid number, got '1,0e-3'; decimals have a point: 1.0e-3",
        ),
        ("lr: 1e-3", "lr: small", "optim.lr: input should be a valid number, got 'small'; write a number"),
        (
            "epochs: 3",
            "epochs: 12:30",
            "train.epochs: input should be a valid integer, got '12:30'; write a whole number",
        ),
        ("epochs: 3", "epochs: 3.0", "train.epochs: input should be a valid integer, got 3.0; write 3"),
        ("epochs: 3", "epochs: 030", "train.epochs: input should be a valid integer, got '030'; write a whole number"),
        ("name: small", "name: 12", "name: input should be a valid string, got 12; in quotes it is a text: '12'"),
        ("name: small", "name: a/b", "name: 'a/b' must be a plain name, without / and leading dots"),
        (
            "name: small",
            'name: "a\\nb"',
            r"name: 'a\nb' holds line breaks or other signs that can't be seen; use letters, digits, - and _",
        ),
        ("name: small", "name: .a", "name: '.a' must be a plain name, without / and leading dots"),
        ("dataset: demo", "dataset: a/b", "dataset: 'a/b' must be a plain name, without / and leading dots"),
        (
            "sampling: dense,",
            "sampling: dens,",
            "clip.sampling: input should be 'dense', 'dense_decord' or 'segments', got 'dens'; did you mean 'dense'?",
        ),
        (
            "name: small",
            "name: small\nexecution: {ledger: yes}",
            "execution.ledger: input should be a valid boolean, got 'yes'; write true",
        ),
        ("name: small", "name: small\nepochs: 3", "epochs: unknown field; did you mean train.epochs?"),
    ],
)
def test_a_small_slip_is_told_with_field_and_value_and_what_would_be_right(old, new, fault, tmp_path):
    text = SMALL.read_text()
    assert old in text
    (tmp_path / "e.yaml").write_text(text.replace(old, new, 1))
    assert faults_of(lambda: load_config(tmp_path / "e.yaml")) == [fault]


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        (
            "a: {x: 1}\nb:\n  <<: {y: 2}\n  x: 3\n",
            3,
            "merges another mapping with <<, which isn't read; write its fields out",
        ),
        (
            "a: 1\nb: &m {x: 1}\nc: {<<: *m}\n",
            3,
            "merges another mapping with <<, which isn't read; write its fields out",
        ),
        ("optim: {lr: 1,0e-3, min_lr: 0}\n", 1, "the number 0e-3 where a field's name belongs; decimals have a point"),
        ("a:\n\tb: 1\n", 2, "a tab where spaces belong"),
        ("a:\n  b: 1\n\tc: 1\n", 3, "a tab where spaces belong"),
        ("a: 1\nb: 2\na: 3\n", 3, "a is given twice"),
        ("a: 1\nb: *c\n", 2, "found undefined alias 'c'"),
    ],
)
def test_what_yaml_allows_and_an_experiment_does_not_is_told_with_its_line(text, line, fault, tmp_path):
    (tmp_path / "e.yaml").write_text(text)
    assert faults_of(lambda: read_yaml(tmp_path / "e.yaml")) == [
        f"{tmp_path}/e.yaml:{line}: is not valid YAML: {fault}"
    ]


@pytest.mark.parametrize("text", ["name: a\nname: b\n", "model:\n  depths: 1\n  mlp_ratio: 2\n  depths: 3\n"])
def test_a_key_given_twice_is_refused(text, tmp_path):
    (tmp_path / "e.yaml").write_text(text)
    (fault,) = faults_of(lambda: read_yaml(tmp_path / "e.yaml"))
    assert re.search(r"e\.yaml:[24]: is not valid YAML: (name|depths) is given twice$", fault)


def test_the_same_key_in_two_sections_is_no_repetition():
    assert parse_yaml("a: {x: 1}\nb: {x: 2}") == {"a": {"x": 1}, "b": {"x": 2}}


@pytest.mark.parametrize(
    "text", ["name: {{ name }}", "a: [1", "a: b: c", "\tx: 1", "{[1]: 2}", "a: !!python/name:os.system"]
)
def test_what_is_not_yaml_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "e.yaml").write_text(text)
    (fault,) = faults_of(lambda: read_yaml(tmp_path / "e.yaml"))
    assert fault.startswith(f"{tmp_path}/e.yaml:1: is not valid YAML: ")
    assert "\n" not in fault


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- a\n- b\n", "list"), ("just words", "str")])
def test_a_file_that_holds_no_fields_is_refused(text, kind, tmp_path):
    (tmp_path / "e.yaml").write_text(text)
    assert faults_of(lambda: read_yaml(tmp_path / "e.yaml")) == [
        f"{tmp_path}/e.yaml: holds {kind}, not `field: value` lines"
    ]


def test_a_missing_file_is_named(tmp_path):
    assert faults_of(lambda: load_config(tmp_path / "no.yaml")) == [f"{tmp_path}/no.yaml: no such file"]


def test_a_folder_and_a_binary_file_cannot_be_read(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    for path in (tmp_path, tmp_path / "b.yaml"):
        (fault,) = faults_of(lambda path=path: load_config(path))
        assert fault.startswith(f"{path}: can't be read")


def test_a_value_that_json_cannot_hold_is_refused():
    (fault,) = faults_of(lambda: load_config(SMALL, {"name": parse_yaml("!!timestamp 2020-01-01")}))
    assert "a value is of a kind that no field takes" in fault


def test_overrides_and_a_changed_file_give_the_same_experiment(tmp_path):
    point = {"model.depths": [1, 1, 1, 1], "optim.lr": 0.01}
    content = yaml.safe_load(SMALL.read_text())
    content["model"]["depths"], content["optim"] = [1, 1, 1, 1], {**content["optim"], "lr": 0.01, "min_lr": 1.0e-5}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content))
    assert load_config(SMALL, point) == load_config(tmp_path / "e.yaml")


def test_overrides_leave_the_mapping_that_they_are_put_over_alone():
    content = {"a": {"b": [1]}}
    assert with_overrides(content, {"a.b": [2], "c.d": 3}) == {"a": {"b": [2]}, "c": {"d": 3}}
    assert content == {"a": {"b": [1]}}


def test_an_override_below_a_plain_value_is_refused():
    assert faults_of(lambda: load_config(SMALL, {"name.x": 1})) == ["name.x: name is 'small', not a section"]


def test_the_faults_of_file_and_overrides_come_together(tmp_path):
    (tmp_path / "e.yaml").write_text(SMALL.read_text().replace("epochs: 3", "epochs: none"))
    faults = faults_of(lambda: load_config(tmp_path / "e.yaml", {"test.num_clips": 0}))
    assert sorted(fault.split(":")[0] for fault in faults) == ["test.num_clips", "train.epochs"]


def test_a_config_error_keeps_its_faults_between_processes():
    error = pickle.loads(pickle.dumps(ConfigError(["a: x", "b: y"])))
    assert error.faults == ("a: x", "b: y")
