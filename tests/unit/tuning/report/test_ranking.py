"""Ranking: intervals hold what they promise, and noise is never called a winner."""

import numpy as np
import pytest
from scipy import stats
from synthetic_sweeps import result_of, synthetic_sweep, trial

from morphmlp.tasks import scores
from morphmlp.tuning.report.ranking import interval, ranked


def seeds(title, top1, *, first=1, videos=400, **changes):
    """Trials of one point, one for each top-1; None is a stopped one."""
    return [
        trial(
            first + place,
            {"model.chunk_lengths": title},
            seed=place,
            num_videos=videos,
            **({"score": value} if value is not None else {"state": "stopped"}),
            **changes,
        )
        for place, value in enumerate(top1)
    ]


def test_one_seed_has_wilsons_interval_of_its_test_videos_and_says_so():
    score = interval([90.0], 200)
    expected = stats.binomtest(180, 200).proportion_ci(method="wilson")
    assert (score.low, score.high) == pytest.approx((100 * expected.low, 100 * expected.high), rel=1e-4)
    assert str(score) == "90.0 (95 % interval 85.1-93.4, 1 seed, test set's error alone)"


def test_the_interval_of_two_seeds_follows_the_modules_formula():
    score = interval([80.0, 84.0], 300)
    p, n, k = 0.82, 300, 2
    kept_off = (p * n + 2) / (n + 4)
    theta = 0.0008 / (kept_off * (1 - kept_off))
    videos = 1 / (1 / n + (12.7062 / 1.959964) ** 2 * theta / k)
    z2 = 1.959964**2
    centre = (p + z2 / (2 * videos)) / (1 + z2 / videos)
    half = (1.959964 / (1 + z2 / videos)) * np.sqrt(p * (1 - p) / videos + z2 / (4 * videos**2))
    assert (score.low, score.high) == pytest.approx((100 * (centre - half), 100 * (centre + half)))
    assert score.with_spread


def test_more_seeds_dont_shrink_the_test_sets_share_of_an_interval():
    alone = interval([80.0], 100)
    many = interval([80.0] * 50, 100)
    assert many.high - many.low == pytest.approx(alone.high - alone.low, rel=1e-6)


def test_an_interval_stays_between_0_and_100_percent():
    perfect, hopeless = interval([100.0, 100.0], 50), interval([0.0, 0.0], 50)
    assert (perfect.high, hopeless.low) == (100.0, 0.0)
    assert perfect.low < 100
    assert hopeless.high > 0


@pytest.mark.parametrize(
    ("score", "own", "videos"),
    [(43.0, (42.1, 43.9), 2000), (43.0, (38.0, 48.0), 2000), (80.0, (79.5, 80.5), 50), (5.0, (4.0, 6.0), 500)],
)
def test_a_score_with_an_interval_of_its_own_keeps_it(score, own, videos):
    """Wider or narrower than that of a share of the videos; Wilson's isn't quite symmetric."""
    (point,) = ranked(result_of(seeds("a", [score], videos=videos, score_interval=own))).points
    assert (point.score.low, point.score.high) == pytest.approx(own, abs=0.06 * (own[1] - own[0]))


def test_an_interval_without_width_leaves_the_number_of_videos():
    (point,) = ranked(result_of(seeds("a", [100.0], videos=50, score_interval=(100.0, 100.0)))).points
    assert (point.score.low, point.score.high) == (interval([100.0], 50).low, 100.0)


def test_other_points_spread_narrows_a_points_own_of_one_degree_of_freedom():
    alone = interval([80.0, 82.0], 400)
    among = interval([80.0, 82.0], 400, [(1, 0.001)] * 11)
    assert among.high - among.low < alone.high - alone.low


def test_spreads_of_other_points_count_by_their_median():
    # theta is chi-squared over its degrees of freedom, times what it estimates: its median lies below that.
    score = interval([80.0], 400, [(2, 0.001)] * 3)
    theta = 0.001 / np.log(2)
    videos = 1 / (1 / 400 + (stats.t.ppf(0.975, 4) / stats.norm.ppf(0.975)) ** 2 * theta)
    expected = stats.binomtest(round(0.8 * videos), round(videos)).proportion_ci(method="wilson")
    assert (score.low, score.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=0.3)


def test_an_unstable_point_doesnt_blur_the_others():
    calm = [(1, 0.0005)] * 10
    without, among = interval([80.0, 81.0], 400, calm), interval([80.0, 81.0], 400, [*calm, (1, 0.5)])
    assert among.high - among.low < 1.1 * (without.high - without.low)


@pytest.mark.parametrize("true", [0.6, 0.9, 0.98])
def test_95_percent_of_intervals_hold_the_true_top1(true):
    rng = np.random.Generator(np.random.Philox(3))
    held = 0
    rounds = 200
    for _ in range(rounds):
        # Videos are shared by the seeds of a sweep: what a seed gets right depends on the video and on the seed.
        easy = rng.random(480) < true
        own = [100 * float(np.mean(np.where(rng.random(480) < 0.1, rng.random(480) < true, easy))) for _ in range(2)]
        others = []
        for _ in range(11):
            pair = [rng.normal(true, np.std(own) / 100 + 0.002) for _ in range(2)]
            others.append((1, float(np.var(pair, ddof=1)) / (true * (1 - true))))
        score = interval(own, 480, others)
        held += score.low <= 100 * true <= score.high
    assert 0.91 <= held / rounds <= 1.0


def test_points_are_ranked_by_their_mean_over_seeds():
    ranking = ranked(result_of([*seeds([1], [60, 62]), *seeds([2], [90, 92]), *seeds([4], [75, 77])]))
    assert [(point.title, point.rank, point.score.mean) for point in ranking.points] == [
        ("[2]", 1, 91.0),
        ("[4]", 2, 76.0),
        ("[1]", 3, 61.0),
    ]


def test_points_within_noise_of_the_best_are_indistinguishable_and_far_ones_are_behind():
    ranking = ranked(result_of([*seeds([1], [90, 91]), *seeds([2], [89.5, 90]), *seeds([4], [60, 61])]))
    assert [point.group for point in ranking.points] == ["best", "indistinguishable", "behind"]


def test_two_equal_points_are_distinguished_in_few_sweeps():
    rng = np.random.Generator(np.random.Philox(5))
    apart = 0
    for _ in range(200):
        tops = 100 * rng.binomial(400, np.clip(rng.normal(0.8, 0.01, size=4), 0, 1)) / 400
        apart += bool(ranked(result_of([*seeds([1], tops[:2]), *seeds([2], tops[2:])])).of("behind"))
    assert apart <= 14


def test_a_lucky_point_of_which_a_seed_was_stopped_is_no_winner():
    ranking = ranked(result_of([*seeds([1], [80, 81]), *seeds([2], [95, None])]))
    assert ranking.best.title == "[1]"
    (lucky,) = ranking.of("partly finished")
    assert (lucky.title, lucky.rank, lucky.seeds_text, lucky.score.mean) == ("[2]", None, "1 of 2", 95.0)


def test_where_less_is_better_order_intervals_and_fronts_turn_around(monkeypatch):
    monkeypatch.setitem(scores.SCORES, "e", (scores.ScoreName(key="error", title="error", higher_is_better=False),))
    trials = [*seeds([1], [10, 11], gmacs=2.0), *seeds([2], [40, 41], gmacs=1.0), *seeds([4], [60, 61], gmacs=1.5)]
    ranking = ranked(result_of([*trials, *seeds([8], [10.5, 11], gmacs=2.5)], task="e"))
    assert [(point.title, point.group) for point in ranking.points] == [
        ("[1]", "best"),
        ("[8]", "indistinguishable"),
        ("[2]", "behind"),
        ("[4]", "behind"),
    ]
    assert [point.title for point in ranking.points if "GMAC" in point.fronts] == ["[1]", "[2]"]


def test_where_no_point_has_all_seeds_those_with_most_are_compared():
    ranking = ranked(result_of([*seeds([1], [80, None, None]), *seeds([2], [70, 71, None])]))
    assert (ranking.best.title, ranking.best.is_complete) == ("[2]", False)
    assert [point.title for point in ranking.of("partly finished")] == ["[1]"]


def test_points_without_a_result_come_last_the_furthest_first():
    stopped = [seeds([length], [None], epochs=epochs)[0] for length, epochs in ((1, 1), (2, 3), (4, 2))]
    ranking = ranked(result_of([*stopped, *seeds([8], [50])]))
    assert [point.title for point in ranking.points] == ["[8]", "[2]", "[4]", "[1]"]
    assert ranked(result_of(stopped)).best is None


def test_a_more_expensive_point_that_is_no_better_leaves_the_front():
    cheap, expensive = seeds([1], [80, 81], gmacs=1.0), seeds([2], [80, 80.5], gmacs=2.0)
    fronts = {point.title: point.fronts for point in ranked(result_of([*cheap, *expensive])).points}
    assert "GMAC" in fronts["[1]"]
    assert "GMAC" not in fronts["[2]"]


def test_a_more_expensive_point_with_a_higher_mean_stays_on_the_front():
    cheap, expensive = seeds([1], [80, 81], gmacs=1.0), seeds([2], [80, 81.5], gmacs=2.0)
    assert all("GMAC" in point.fronts for point in ranked(result_of([*cheap, *expensive])).points)


def test_noise_of_a_measured_cost_takes_no_point_from_its_front():
    def at(length, top1, wall_s):
        return [trial(place, {"a": length}, seed=place, score=top1, wall_s=s) for place, s in enumerate(wall_s)]

    slower, faster = at(1, 80.0, (100, 108)), at(2, 80.0, (99, 107))
    assert all("time" in point.fronts for point in ranked(result_of([*slower, *faster])).points)
    slower = at(1, 80.0, (200, 208))
    assert [point.point["a"] for point in ranked(result_of([*slower, *faster])).points if "time" in point.fronts] == [2]


def test_a_cost_that_all_share_has_no_front_and_isnt_shown():
    ranking = ranked(result_of([*seeds([1], [80, 81], wall_s=50.0), *seeds([2], [85, 86], wall_s=90.0)]))
    assert [cost.key for cost in ranking.shown_costs()] == ["time"]
    assert all(set(point.fronts) <= {"time"} for point in ranking.points)


def test_short_trials_are_shown_in_minutes_and_long_ones_in_hours():
    assert ranked(result_of(seeds([1], [80], wall_s=90.0))).time_unit == ("minutes", 60.0)
    assert ranked(result_of(seeds([1], [80], wall_s=9000.0))).time_unit == ("hours", 1.0)


def test_every_point_of_a_large_sweep_stands_in_the_ranking_once():
    sweep = synthetic_sweep(500)
    ranking = ranked(sweep)
    assert sorted(t.number for point in ranking.points for t in point.trials) == list(range(1, 1001))
