"""Which trials the halving gives up; no Ray is started."""

from morphmlp.config.sweep import Asha, NoScheduler
from morphmlp.tuning.ray_halving import Halving


def halving(**changes):
    return Halving(Asha(kind="asha", **changes), epochs=9)


def test_a_trial_behind_the_best_third_of_an_epoch_is_given_up_with_the_reason():
    one = halving()
    for number, top1 in enumerate([50.0, 60.0, 40.0], start=1):
        one.take(number, 1, top1)
    assert one.stopped == {3: "validation top-1 40.0 at epoch 1 is not among the best 33% so far"}


def test_nothing_is_given_up_inside_the_grace_period():
    one = halving(grace_epochs=3)
    for number, top1 in enumerate([50.0, 40.0, 30.0], start=1):
        one.take(number, 1, top1)
        one.take(number, 2, top1)
    assert one.stopped == {}
    for number, top1 in enumerate([50.0, 40.0, 30.0], start=1):
        one.take(number, 3, top1)
    assert set(one.stopped) == {2, 3}


def test_a_trial_at_its_last_epoch_is_not_given_up_any_more():
    one = Halving(Asha(kind="asha"), epochs=3)
    for number, top1 in enumerate([50.0, 40.0], start=1):
        one.take(number, 3, top1)
    assert one.stopped == {}


def test_a_score_told_again_changes_nothing():
    scores = [(1, 1, 50.0), (2, 1, 60.0), (1, 2, 70.0), (3, 1, 55.0), (4, 1, 61.0)]
    once, twice = halving(), halving()
    for score in scores:
        once.take(*score)
        twice.take(*score)
        twice.take(*score)
    assert once.stopped == twice.stopped != {}


def test_without_a_scheduler_nothing_is_given_up():
    one = Halving(NoScheduler(), epochs=9)
    for number, top1 in enumerate([50.0, 1.0], start=1):
        one.take(number, 1, top1)
    assert one.stopped == {}
