"""Intervals of shares against scipy and statsmodels, and how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from morphmlp.tasks.intervals import class_mean_estimate, share_estimate, wilson


@pytest.mark.parametrize(
    ("right", "videos"), [(0, 1), (1, 1), (0, 40), (40, 40), (1, 2), (7, 40), (19880, 19881), (15123, 19881)]
)
def test_the_interval_of_a_share_is_wilsons_as_scipy_and_statsmodels_have_it(right, videos):
    found = share_estimate(right, videos)
    of_scipy = binomtest(right, videos).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((of_scipy.low, of_scipy.high), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, videos, method="wilson"), abs=1e-12)
    assert found.low <= found.value == right / videos <= found.high


def test_numbers_of_videos_neednt_be_whole():
    share, videos = np.array([0.0, 0.3, 1.0]), np.array([2.5, 10.25, 7.125])
    theirs = proportion_confint(share * videos, videos, method="wilson")
    assert np.allclose(wilson(share, videos), theirs, rtol=1e-12, atol=1e-12)


def test_no_videos_have_no_share():
    assert np.isnan([share_estimate(0, 0).value, share_estimate(0, 0).low, *wilson(np.nan, 0)]).all()
    nothing = class_mean_estimate(np.zeros(3, np.int64), np.zeros(3, np.int64))
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


@pytest.mark.parametrize(("right", "videos"), [(0, 1), (1, 1), (7, 40), (40, 40)])
def test_the_mean_over_one_class_is_that_classs_share(right, videos):
    # A class without videos takes no part.
    mean = class_mean_estimate(np.array([right, 0]), np.array([videos, 0]))
    share = share_estimate(right, videos)
    assert (mean.value, mean.low, mean.high) == pytest.approx((share.value, share.low, share.high), abs=1e-12)


def test_classes_of_one_video_each_that_are_all_right_count_as_so_many_videos():
    mean, share = class_mean_estimate(np.ones(60, np.int64), np.ones(60, np.int64)), share_estimate(60, 60)
    assert (mean.value, mean.low, mean.high) == pytest.approx((share.value, share.low, share.high), abs=1e-12)


@pytest.mark.parametrize(
    ("classes", "fewest", "most"),
    [(1, 50, 50), (2, 50, 50), (3, 5, 20), (10, 1, 6), (400, 1, 3), (400, 49, 50), (174, 5, 200)],
)
@pytest.mark.parametrize("even", [True, False], ids=["classes alike", "easy and hopeless classes"])
def test_95_percent_of_the_intervals_hold_the_mean_of_the_classes_true_shares(classes, fewest, most, even):
    rng, held, rounds = np.random.default_rng(5), 0, 1500
    for _ in range(rounds):
        videos, share = rng.integers(fewest, most + 1, classes), rng.beta(*((8, 2) if even else (0.3, 0.3)), classes)
        found = class_mean_estimate(rng.binomial(videos, share), videos)
        held += found.low <= share.mean() <= found.high
    # Few videos of classes that differ leave it wider than need be.
    assert 0.935 <= held / rounds <= (0.975 if even else 1)
