"""Where costs come from: options, files, the record; and refusals that name the command that measures."""

import json
from pathlib import Path

import pytest
from empty_store import empty_store

from morphmlp.config import load_config
from morphmlp.config.loading import flat_fields
from morphmlp.errors import ConfigError
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.sizing.measured import Found, add_file, add_options, add_run, clip_fields, known
from morphmlp.tracking import RunWriter, open_run

PUBLISHED = Path(__file__).parents[3] / "experiments" / "k400" / "morphmlp_s_16x4.yaml"
CONFIG = load_config(PUBLISHED)
STEP = {"run_step_s": 0.4, "clips_per_step": 48, "micro_batches": 3, "device": "NVIDIA H200"}
VARIANTS = {
    "variants": [{"name": "as configured", "step_s": 0.2}, {"name": "compiled blocks", "step_s": 0.1}],
    "clips_per_step": 16,
    "micro_batches": 1,
    "device": "NVIDIA H200",
}
INGEST = {"ray_cpu_ratio": 1.03, "ingest": {"ray_cpu_ms": 35.0}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A record with one run on GPUs and one on CPUs."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('record') / 'mlflow.db'}"
    empty_store(uri)
    for name, trained_on in (("gpus", "4 x NVIDIA H200"), ("cpus", "4 CPU workers")):
        tags = {Tags.EXPERIMENT: CONFIG.name, Tags.TRAINED_ON: trained_on}
        run = RunWriter(uri, open_run(uri, experiment="k400", run_name=name, tags=tags, params=flat_fields(CONFIG)))
        times = [MetricPoint(Metrics.TRAIN_COMPUTE_S, value, step, 1) for step, value in enumerate([0.9, 0.3, 0.3])]
        run.metrics([MetricPoint(Metrics.RUN_CPU_S_PER_CLIP, 0.05, 0, 1), *times])
        run.finish("FINISHED")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield


def from_file(tmp_path, content, config=CONFIG):
    found, path = Found(), tmp_path / "result.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    add_file(found, path, config)
    return found


@pytest.mark.parametrize(
    ("content", "changes", "steps", "decode_s"),
    [
        (STEP, {}, {16: 0.4 / 3}, None),
        (VARIANTS, {}, {16: 0.2}, None),
        (VARIANTS, {"execution.compile": "blocks"}, {16: 0.1}, None),
        (INGEST, {"augment.rand_augment": None}, {}, 0.035),
        (INGEST, {"augment.on": "worker"}, {}, 0.035),
    ],
)
def test_a_benchmark_gives_what_it_measured(tmp_path, content, changes, steps, decode_s):
    found = from_file(tmp_path, content, load_config(PUBLISHED, changes))
    assert (found.steps, found.decode_s) == (pytest.approx(steps), decode_s)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "is no JSON"),
        ([], "isn't a result of"),
        ({"stall_s": 1}, "isn't a result of"),
        (INGEST, "leaves RandAugment out"),
        (STEP | {"device": "cpu"}, "was measured on a CPU"),
        ({key: value for key, value in STEP.items() if key != "micro_batches"}, "how many micro-batches"),
    ],
)
def test_a_file_that_cannot_stand_for_the_experiment_is_refused(tmp_path, content, fault):
    with pytest.raises(ConfigError, match=fault):
        from_file(tmp_path, content)


BUSY = {
    "cores": 64,
    "alone_s": {"decoding": 0.04},
    "optimiser_s": 0.0,
    "crowds": [{"work": "decoding", "beside": "decoding", "processes": 64, "cpu_ratio": 1.5}],
    "clip_fields": clip_fields(CONFIG),
}


@pytest.mark.parametrize(
    ("content", "before", "decode_s", "growth"),
    [
        (BUSY, {}, 0.06, 1.5),  # its own cost of a clip, on a full node
        (BUSY, {"decode_ms": 20}, 0.03, 1.5),  # a decoder alone cost that
        (
            BUSY | {"clip_fields": {}},
            {"decode_ms": 20},
            0.03,
            1.5,
        ),  # another experiment's growth does, its cost doesn't
    ],
)
def test_a_clip_costs_what_it_costs_on_a_full_node_where_that_was_measured(tmp_path, content, before, decode_s, growth):
    found, path = Found(), tmp_path / "busy.json"
    add_options(found, steps=["0.1"], decode_ms=before.get("decode_ms"), clips=16)
    path.write_text(json.dumps(content))
    add_file(found, path, CONFIG)
    costs = found.costs(CONFIG)
    assert (costs.decode_s, costs.decode_growth, costs.full_cores) == (pytest.approx(decode_s), growth, 64)
    assert known(found)["decode_growth_on_a_full_node"] == growth


def test_a_cost_that_was_measured_among_others_does_not_grow_again(tmp_path):
    found, path = Found(), tmp_path / "busy.json"
    found.step(16, 0.1, "a test")
    found.decode(0.05, "a run")
    path.write_text(json.dumps(BUSY))
    add_file(found, path, CONFIG)
    costs = found.costs(CONFIG)
    assert (costs.decode_s, costs.decode_growth, costs.full_cores) == (0.05, 1.0, None)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"alone_s": {"computing": 1}}, "has no decoding"), ({"crowds": [{}]}, "isn't whole; measure again")],
)
def test_busy_cores_without_what_is_needed_are_refused(tmp_path, changes, fault):
    with pytest.raises(ConfigError, match=fault):
        from_file(tmp_path, BUSY | changes)


def test_the_clips_of_another_experiment_are_not_taken_for_this_ones(tmp_path):
    found = from_file(tmp_path, BUSY, load_config(PUBLISHED, {"augment.flip": 0.0}))
    assert found.decode_s is None
    assert "augment.flip differ" in found.notes[0]


@pytest.mark.parametrize("text", ["fast", "0", "0=1", "8=", "8:0.1", "-1"])
def test_a_step_that_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match=f"--step-s {text}: isn't SECONDS or CLIPS=SECONDS"):
        add_options(Found(), steps=[text], decode_ms=None, clips=16)


def test_what_nobody_measured_is_refused_with_the_commands_that_do():
    with pytest.raises(ConfigError) as refused:
        Found().costs(CONFIG)
    step, decode = refused.value.faults
    assert "benchmark.py train-step --config FILE --clips 16" in step
    assert "--measure-decode 64" in decode


def test_options_come_before_files(tmp_path):
    found = Found()
    add_options(found, steps=["0.1", "8=0.06"], decode_ms=30, clips=16)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(STEP))
    add_file(found, path, CONFIG)
    costs = found.costs(CONFIG)
    assert (costs.step.points, costs.decode_s) == ([(8, 0.06), (16, 0.1)], 0.03)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("name", "changes", "steps", "decode_s"),
    [
        ("gpus", {}, {16: 0.15}, 0.05),  # two micro-batches a worker and step
        ("cpus", {}, {}, 0.05),
        (None, {}, {}, 0.05),  # the newest
        ("gpus", {"execution.compile": "blocks"}, {}, 0.05),
        ("gpus", {"augment.flip": 0.0}, {16: 0.15}, None),
        ("gpus", {"train.micro_batch_size": 4}, {}, 0.05),
        (None, {"name": "another"}, {}, None),
    ],
)
def test_a_run_gives_what_is_the_same_in_the_experiment(name, changes, steps, decode_s):
    found = Found()
    add_run(found, load_config(PUBLISHED, changes), name=name)
    assert (found.steps, found.decode_s) == (pytest.approx(steps), decode_s)
    assert (not found.notes) == bool(steps and decode_s)


@pytest.mark.usefixtures("store")
def test_a_run_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="--measured second: is no file"):
        add_run(Found(), CONFIG, name="second")
