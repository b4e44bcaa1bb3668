"""Who exploits whom in a population: the worst the best, and the same again after a replay."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import PopulationSearch, Range, SweepConfig, unit_faults
from morphmlp.tasks.scores import TOP1
from morphmlp.tuning.search.population import Population
from morphmlp.tuning.space.space import ImpossiblePoint, Planner, expand

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
RATES = Range(low=1e-4, high=1e-1, log=True)
SPACE = {"optim.lr": RATES, "mixing.label_smoothing": (0.0, 0.1, 0.2, 0.3)}
EPOCHS = 10


def population(*, size=4, quantile=0.25, seed=0, space=None, overrides=None, whole=EPOCHS, unit="epoch", **every):
    sweep = SweepConfig(
        name="s",
        experiment=str(SMALL),
        overrides=overrides or {},
        space=space or SPACE,
        search=PopulationSearch(kind="population", size=size, quantile=quantile, seed=seed, **every),
        max_concurrent_trials=size,
    )
    base = read_yaml(SMALL)
    return Population(
        sweep.search,
        sweep.space,
        expand(sweep, base).points,
        score=TOP1,
        whole=whole,
        unit=unit,
        make_point=Planner(sweep, base).point,
    )


def decided(members, reports):
    """What each of the reports (member, epoch, score) leads to."""
    return [members.on_score(*report) for report in reports]


def worst_after_three(members, epoch=1):
    """Members 2 to 4 have reported, 3 is best; then member 1 reports that it's the worst."""
    return decided(members, [(2, epoch, 30.0), (3, epoch, 50.0), (4, epoch, 40.0), (1, epoch, 10.0)])[-1]


def test_every_member_begins_with_values_of_its_own():
    members = population(size=8)
    assert len({json.dumps(members.values(number)) for number in range(1, 9)}) == 8


def test_the_worst_exploits_the_best():
    members = population()
    best = members.values(3)
    taken = worst_after_three(members)
    assert (taken.donor, taken.donor_at, taken.donor_score) == (3, 1, 50.0)
    assert members.values(1) == taken.values
    assert members.values(3) == best


def test_who_is_not_among_the_worst_continues_as_it_is():
    members = population()
    assert decided(members, [(1, 1, 10.0), (2, 1, 30.0), (3, 1, 50.0), (4, 1, 40.0), (2, 2, 35.0)]) == [None] * 5


def test_nobody_is_judged_before_enough_members_have_reported():
    assert decided(population(), [(2, 1, 50.0), (3, 1, 40.0), (1, 1, 10.0)]) == [None] * 3


def test_equal_members_take_nothing_from_each_other():
    assert decided(population(), [(member, 1, 25.0) for member in (1, 2, 3, 4)]) == [None] * 4


def test_members_look_at_each_other_every_n_th_epoch():
    members = population(every_epochs=3)
    assert [worst_after_three(members, epoch) is None for epoch in (1, 2, 3, 4)] == [True, True, False, True]


def test_at_its_end_a_member_takes_nothing_and_gives_nothing():
    assert worst_after_three(population(), EPOCHS) is None
    members = population()
    decided(members, [(2, 1, 30.0), (3, EPOCHS, 50.0), (4, 1, 40.0)])
    assert members.on_score(1, 1, 10.0) is None


def test_a_donor_may_be_at_another_epoch():
    members = population()
    decided(members, [(2, 3, 30.0), (3, 2, 50.0), (4, 5, 40.0)])
    assert members.on_score(1, 4, 10.0).donor_at == 2


def test_a_member_that_changed_is_not_compared_until_it_reports_again():
    members = population()
    assert worst_after_three(members) is not None
    assert members.on_score(2, 2, 5.0) is None  # three are known, of whom a quarter is nobody
    assert members.on_score(1, 2, 60.0) is None
    assert members.on_score(2, 3, 6.0).donor == 1


def test_a_diverged_member_exploits_another_at_any_epoch():
    members = population(every_epochs=5)
    decided(members, [(2, 1, 30.0), (3, 1, 50.0), (4, 1, 40.0)])
    assert members.on_score(1, 2, math.nan).donor == 3
    assert population().on_score(1, 2, math.nan) is None  # from nobody


def test_donors_are_drawn_among_all_the_best():
    donors = set()
    for seed in range(20):
        members = population(size=8, seed=seed)
        decided(members, [(member, 1, 10.0 * member) for member in range(2, 9)])
        donors.add(members.on_score(1, 1, 1.0).donor)
    assert donors == {7, 8}


def test_numbers_of_a_range_are_scaled_or_drawn_anew_and_stay_inside():
    ratios = []
    for seed in range(200):
        members = population(seed=seed, space={"optim.lr": RATES})
        taken = worst_after_three(members)
        rate, donors = taken.values["optim.lr"], members.values(3)["optim.lr"]
        assert RATES.low <= rate <= RATES.high
        inside = RATES.low < donors * 0.8 and donors * 1.2 < RATES.high
        ratios += [round(rate / donors, 6)] if inside else []
    share = {ratio: ratios.count(ratio) / len(ratios) for ratio in (0.8, 1.2)}
    assert 0.25 < share[0.8] < 0.5
    assert 0.25 < share[1.2] < 0.5
    assert share[0.8] + share[1.2] < 0.9


def test_a_number_at_the_end_of_its_range_is_not_scaled_beyond():
    narrow = Range(low=0.9, high=1.0)
    rates = set()
    for seed in range(30):
        rates.add(worst_after_three(population(seed=seed, space={"optim.clip_norm": narrow})).values["optim.clip_norm"])
    assert {0.9, 1.0} <= rates
    assert all(0.9 <= rate <= 1.0 for rate in rates)


@pytest.mark.parametrize("values", [(0.0, 0.1, 0.2, 0.3, 0.4), Range(low=0.0, high=0.4, step=0.1)])
def test_values_of_a_list_move_to_a_neighbour(values):
    steps = []
    for seed in range(200):
        members = population(seed=seed, space={"mixing.label_smoothing": values})
        donors = round(members.values(3)["mixing.label_smoothing"] * 10)
        steps.append(round(worst_after_three(members).values["mixing.label_smoothing"] * 10) - donors)
    assert steps.count(1) > 40
    assert steps.count(-1) > 40
    assert sum(abs(step) > 1 for step in steps) < 60  # only those drawn anew


def test_impossible_changes_are_drawn_again():
    space = {"optim.lr": Range(low=0.9, high=2.0), "optim.min_lr": Range(low=0.5, high=1.2)}  # min_lr may exceed lr
    base = read_yaml(SMALL)
    changed = 0
    for seed in range(40):
        members = population(seed=seed, space=space)
        taken = worst_after_three(members)
        assert taken.values["optim.min_lr"] <= taken.values["optim.lr"]
        changed += taken.values != members.values(3)
    assert changed == 40
    sweep = SweepConfig(
        name="s", experiment=str(SMALL), overrides={}, space=space,
        search=PopulationSearch(kind="population", size=4), max_concurrent_trials=4,
    )  # fmt: skip
    refused = ImpossiblePoint(values={}, title="", reasons=("no",))
    stuck = Population(
        sweep.search, space, expand(sweep, base).points, score=TOP1, whole=EPOCHS, make_point=lambda values: refused
    )
    assert worst_after_three(stuck).values == stuck.values(3)


def test_a_member_that_comes_back_to_an_epoch_draws_anew():
    same = []
    for seed in range(10):
        members = population(seed=seed, space={"optim.lr": RATES})
        one, two = worst_after_three(members), worst_after_three(members)
        assert (one.donor, two.donor) == (3, 3)
        same.append(one.values == two.values)
    assert not all(same)


REPORTS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, EPOCHS), st.one_of(st.just(math.nan), st.floats(0, 100, width=32))),
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(reports=REPORTS, stop=st.integers(0, 40))
def test_known_reports_in_their_order_bring_the_population_back(reports, stop):
    through = population(size=6)
    decisions = decided(through, reports)
    again = population(size=6)
    assert decided(again, reports[:stop]) == decisions[:stop]
    assert decided(again, reports[stop:]) == decisions[stop:]
    assert [again.values(member) for member in range(1, 7)] == [through.values(member) for member in range(1, 7)]


@settings(max_examples=50, deadline=None)
@given(reports=REPORTS)
def test_a_member_takes_only_from_a_better_one_that_still_trains(reports):
    members = population(size=6, quantile=0.5)
    last = {}
    for member, epoch, score in reports:
        last[member] = (epoch, score)
        taken = members.on_score(member, epoch, score)
        if taken is not None:
            donors_epoch, donors_score = last[taken.donor]
            assert taken.donor != member
            assert (taken.donor_at, taken.donor_score) == (donors_epoch, donors_score)
            assert donors_epoch < EPOCHS
            assert math.isnan(score) or donors_score > score


def test_another_seed_decides_otherwise():
    taken = [worst_after_three(population(seed=seed, space={"optim.lr": RATES})).values for seed in (0, 0, 1)]
    assert taken[0] == taken[1] != taken[2]


def test_members_of_so_many_steps_look_at_each_other_at_validations_or_every_so_many_steps():
    steps = {"train.epochs": None, "train.steps": 900, "optim.warmup_epochs": None, "optim.warmup_steps": 0}
    for every, at, looks in (({}, 100, True), ({"every_steps": 200}, 100, False), ({"every_steps": 200}, 400, True)):
        members = population(overrides=steps, whole=900, unit="step", **every)
        taken = worst_after_three(members, epoch=at)
        assert (taken is not None) == looks
        if taken is not None:
            assert taken.reason == f"trial 3 has 50.0 at step {at}"
    assert worst_after_three(population(overrides=steps, whole=900, unit="step"), epoch=900) is None


@pytest.mark.parametrize(
    ("fields", "unit", "faults"),
    [
        ({"every_epochs": 2}, "step", ["search.every_epochs: is 2; trials of a length in steps (train.steps) take "]),
        ({"every_steps": 2}, "epoch", ["search.every_steps: is 2; trials of a length in epochs (train.epochs) take "]),
        ({"every_steps": 2}, "step", []),
        ({"every_epochs": 2}, "epoch", []),
    ],
)
def test_a_sweep_counts_in_the_unit_of_its_trials(fields, unit, faults):
    search = PopulationSearch(kind="population", size=4, **fields)
    sweep = SweepConfig(name="s", experiment="e", overrides={}, space=SPACE, search=search, max_concurrent_trials=4)
    found = unit_faults(sweep, unit)
    assert len(found) == len(faults)
    assert all(line.startswith(fault) for line, fault in zip(found, faults, strict=True))
