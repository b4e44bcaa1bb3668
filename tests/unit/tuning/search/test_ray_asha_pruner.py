"""Which trials the pruner gives up; no Ray is started."""

import pytest

from morphmlp.config.sweep import Asha
from morphmlp.tasks.scores import TOP1
from morphmlp.tuning.search.ray_asha_pruner import AshaPruner

FOLLOWS = "another seed of its point was behind"


def pruner(**changes):
    return AshaPruner(Asha(kind="asha", **changes), TOP1, whole=9)


def test_a_trial_behind_the_best_third_of_an_epoch_is_given_up_with_the_reason():
    one = pruner()
    for number, score in enumerate([50.0, 60.0, 40.0], start=1):
        one.on_score(number, 1, score)
    assert one.stopped == {3: "validation top-1 40.0 at epoch 1 is not among the best 33% so far"}


def test_nothing_is_given_up_inside_the_grace_period():
    one = pruner(grace_epochs=3)
    for number, score in enumerate([50.0, 40.0, 30.0], start=1):
        one.on_score(number, 1, score)
        one.on_score(number, 2, score)
    assert one.stopped == {}
    for number, score in enumerate([50.0, 40.0, 30.0], start=1):
        one.on_score(number, 3, score)
    assert set(one.stopped) == {2, 3}


def test_a_trial_at_its_last_epoch_is_not_given_up_any_more():
    one = AshaPruner(Asha(kind="asha"), TOP1, whole=3)
    for number, score in enumerate([50.0, 40.0], start=1):
        one.on_score(number, 3, score)
    assert one.stopped == {}


def test_the_same_score_again_changes_nothing():
    scores = [(1, 1, 50.0), (2, 1, 60.0), (1, 2, 70.0), (3, 1, 55.0), (4, 1, 61.0)]
    once, twice = pruner(), pruner()
    for score in scores:
        once.on_score(*score)
        twice.on_score(*score)
        twice.on_score(*score)
    assert once.stopped == twice.stopped != {}


def points_of_two(**changes):
    """Trials 1 and 2 are the seeds of one point, 3 and 4 of the next."""
    return AshaPruner(Asha(kind="asha", **changes), TOP1, whole=9, point_of=lambda number: str((number - 1) // 2))


def test_a_point_is_judged_by_the_seed_that_comes_first_and_the_others_follow():
    one = points_of_two()
    one.on_score(1, 1, 50.0)
    assert one.on_score(3, 1, 40.0).reason == "validation top-1 40.0 at epoch 1 is not among the best 33% so far"
    assert one.given_up(4) == FOLLOWS
    assert one.on_score(4, 1, 99.0).reason == FOLLOWS
    assert one.on_score(2, 1, 1.0) is None
    assert (one.given_up(1), one.given_up(2), one.given_up(3)) == (None, None, None)


def test_only_first_seeds_are_compared():
    one = points_of_two()
    one.on_score(1, 1, 50.0)
    one.on_score(2, 1, 99.0)
    assert one.on_score(3, 1, 60.0) is None


def test_the_seeds_of_a_point_may_lead_alternately():
    one = points_of_two()
    one.on_score(1, 1, 50.0)
    one.on_score(3, 1, 60.0)
    one.on_score(4, 3, 80.0)
    one.on_score(2, 3, 70.0)
    assert one.stopped == {2: "validation top-1 70.0 at epoch 3 is not among the best 33% so far"}
    assert one.given_up(1) == FOLLOWS
    assert one.on_score(1, 2, 90.0).reason == FOLLOWS


@pytest.mark.parametrize(("grace_steps", "judged_at"), [(None, 4000), (8000, 8000)])
def test_trials_of_so_many_steps_are_judged_by_steps(grace_steps, judged_at):
    scheduler = Asha(kind="asha", grace_steps=grace_steps)
    one = AshaPruner(scheduler, TOP1, whole=80_000, unit="step", first_at=4000)
    for at in (4000, 8000):
        for number, score in enumerate([50.0, 60.0, 40.0], start=1):
            one.on_score(number, at, score)
    assert one.stopped == {
        3: f"validation top-1 40.0 at step {judged_at} is not among the best 33% so far",
    }
