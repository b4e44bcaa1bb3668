"""What a sweep by population may hold."""

import pytest

from morphmlp.config.sweep import SCHEDULE, PopulationSearch, known_fields, load_sweep, sweep_to_yaml
from morphmlp.errors import ConfigError

GOOD = """
name: schedules
experiment: small_experiment.yaml
overrides: {}
space:
  optim.lr: {low: 1e-4, high: 1e-2, log: true}
  mixing.mixup: [0.0, 0.4, 0.8]
search: {kind: population, size: 8}
max_concurrent_trials: 8
"""


@pytest.fixture
def faults_of(tmp_path):
    def faults(text):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_sweep(path)
        return sorted(caught.value.faults)

    return faults


def test_a_population_needs_its_size_only(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD)
    sweep = load_sweep(path)
    assert sweep.search == PopulationSearch(kind="population", size=8, every_epochs=1, quantile=0.25, seed=0)
    path.write_text(sweep_to_yaml(sweep))
    assert load_sweep(path) == sweep


def test_schedule_fields_are_fields_of_an_experiment():
    assert set(SCHEDULE) <= known_fields()


def test_fields_that_are_no_schedule_are_refused_each_in_one_line(faults_of):
    text = GOOD.replace(
        "  mixing.mixup", "  optim.warmup_epochs: [0.0, 1.0]\n  model.depths: [[1, 1, 1, 1]]\n  mixing.mixup"
    )
    taken = (
        "optim.lr, optim.min_lr, optim.warmup_lr, optim.weight_decay, optim.clip_norm, mixing.mixup, mixing.cutmix, "
        "mixing.label_smoothing, mixing.prob, mixing.switch_prob"
    )
    assert faults_of(text) == [
        f"space.model.depths: can't change while a member trains; a population takes {taken}",
        f"space.optim.warmup_epochs: can't change while a member trains; a population takes {taken}",
    ]


def test_an_unknown_field_is_told_once(faults_of):
    assert faults_of(GOOD.replace("mixing.mixup", "mixing.mix")) == [
        "space.mixing.mix: unknown field; did you mean mixing.mixup?"
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "size: 8",
            "size: 8, quantile: 0.6",
            "search.quantile: input should be less than or equal to 0.5, got 0.6",
        ),
        ("size: 8", "size: 1", "search.size: input should be greater than or equal to 2, got 1"),
        (
            "size: 8",
            "size: 3",
            "search.quantile: 0.25 of 3 members is less than one; make it at least 0.334, or size larger",
        ),
        (
            "max_concurrent_trials: 8",
            "max_concurrent_trials: 4",
            "max_concurrent_trials: 4 is less than search.size 8; all members of a population train at the same time",
        ),
        (
            "max_concurrent_trials: 8",
            "max_concurrent_trials: 8\nseeds: [0, 1]",
            "seeds: [0, 1]; the members of a population share one seed",
        ),
        (
            "max_concurrent_trials: 8",
            "max_concurrent_trials: 8\nscheduler: {kind: asha}",
            "scheduler: is asha; a population stops no member early, leave it out",
        ),
    ],
)  # fmt: skip
def test_a_fault_of_a_population_is_one_line(old, new, fault, faults_of):
    assert faults_of(GOOD.replace(old, new)) == [fault]


def test_the_least_quantile_that_a_fault_names_is_taken(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD.replace("size: 8", "size: 3, quantile: 0.334"))
    assert load_sweep(path).search.quantile == 0.334
