"""Effects: a stage that matters is found, one that doesn't isn't, and what can't be distinguished is said."""

import numpy as np
import pytest
from synthetic_sweeps import result_of, synthetic_sweep, trial

from morphmlp.tuning.report.effects import effects, shares, unvaried_stages, varying_together
from morphmlp.tuning.report.ranking import ranked


def ranking_of(values_and_top1):
    return ranked(result_of(trial(n, values, score=top1) for n, (values, top1) in enumerate(values_and_top1, 1)))


def grid(gain):
    """Two stages at three lengths each and a learning rate; top-1 by a function of all three."""
    points = [([a, b], lr) for a in (1, 2, 4) for b in (1, 2, 4) for lr in (0.1, 0.2)]
    return [({"model.chunk_lengths": lengths, "optim.lr": lr}, gain(*lengths, lr)) for lengths, lr in points]


def test_marginal_means_average_over_all_other_fields():
    found = effects(ranking_of(grid(lambda a, b, lr: 30 + a + 10 * b + 100 * lr)))
    first, second, rate = found
    assert [effect.title for effect in found] == ["chunk lengths, stage 1", "chunk lengths, stage 2", "lr"]
    around = 30 + np.mean([1, 2, 4]) * 10 + 15
    assert [level.mean for level in first.levels] == pytest.approx([around + a for a in (1, 2, 4)])
    assert [level.label for level in second.levels] == ["1", "2", "4"]
    assert (first.spread, second.spread, rate.spread) == pytest.approx((3, 30, 10))


def test_the_stage_that_matters_is_beyond_the_noise_and_the_others_arent():
    rng = np.random.Generator(np.random.Philox(1))
    first, second, rate = effects(ranking_of(grid(lambda a, b, lr: 50 + 8 * b + rng.normal(0, 1))))
    assert [effect.beyond_noise for effect in (first, second, rate)] == [False, True, False]
    assert second.explained > 0.9
    assert max(first.explained, rate.explained) < 0.2


def test_pure_noise_is_rarely_called_an_effect():
    rng = np.random.Generator(np.random.Philox(2))
    called = sum(
        effect.beyond_noise
        for _ in range(20)
        for effect in effects(ranking_of(grid(lambda a, b, lr: 50 + rng.normal(0, 3))))
    )
    assert called <= 8


def test_intervals_come_from_the_spread_between_points_of_the_same_value():
    (effect,) = effects(ranking_of([({"a": a}, top1) for a, top1 in ((1, 50), (2, 70))]))
    assert (effect.explained, effect.beyond_noise) == (None, False)
    scores = ((1, 50), (1, 54), (2, 70), (2, 74))
    trials = [trial(n, {"a": a, "b": n}, score=score) for n, (a, score) in enumerate(scores)]
    effect = effects(ranked(result_of(trials)))[0]
    half = 4.30265 * np.sqrt(8) / np.sqrt(2)
    assert (effect.levels[0].low, effect.levels[0].high) == pytest.approx((52 - half, 52 + half))


def test_many_numbers_are_put_into_bins_that_hold_all_points():
    points = [({"optim.lr": 0.001 * (1 + n)}, 50.0 + n) for n in range(40)]
    (effect,) = effects(ranking_of(points))
    assert len(effect.levels) == 5
    assert sum(level.points for level in effect.levels) == 40
    assert effect.levels[0].label == "0.001 to 0.008"


def test_each_level_says_how_many_of_its_trials_were_tested():
    trials = [
        trial(1, {"a": 1, "b": 1}),
        trial(2, {"a": 1, "b": 2}, state="stopped"),
        trial(3, {"a": 2, "b": 1}),
        trial(4, {"a": 3, "b": 1}, state="failed"),
    ]
    levels = effects(ranked(result_of(trials)))[0].levels
    assert [(level.finished, level.trials, level.mean) for level in levels] == [(1, 2, 50), (1, 1, 50), (0, 1, None)]


def test_lists_that_vary_as_a_whole_are_one_effect():
    points = [({"model.embed_dims": [16 * s, 32 * s], "x": n}, 50.0 + s) for s in (1, 2) for n in (1, 2)]
    effect, _ = effects(ranking_of(points))
    assert (effect.title, [level.label for level in effect.levels]) == ("embed dims", ["[16 32]", "[32 64]"])


def test_a_field_of_one_value_and_a_stage_of_one_value_have_no_effect():
    points = [({"model.chunk_lengths": [8, 1]}, 50.0), ({"model.chunk_lengths": [4, 1]}, 60.0)]
    assert [effect.stage for effect in effects(ranking_of(points))] == [1]


def test_stages_that_never_vary_are_named_with_their_number():
    lists = [[1, 4, 1], [2, 4, 1], [4, 4, 1]]
    ranking = ranked(result_of([trial(n, {"l": value}) for n, value in enumerate(lists)]))
    assert unvaried_stages(ranking, "l") == ((2, "4"), (3, "1"))
    words = ranked(result_of([trial(n, {"l": word}) for n, word in enumerate(("a", "b"))]))
    assert unvaried_stages(words, "l") == ()


def test_stages_that_rise_together_are_named():
    points = [({"l": [a, a * a, 5 - a, 2 + a % 2]}, 50.0) for a in (1, 2, 3, 4)]
    (line,) = varying_together(ranking_of(points))
    assert "1 and 2 (+1.0)" in line
    assert "1 and 3 (-1.0)" in line
    assert "4" not in line.replace("stages", "")
    assert varying_together(ranking_of(grid(lambda a, b, lr: a))) == ()


def test_ties_get_the_mean_of_their_ranks():
    # Spearman's 0.553; ranks without gaps (dense) would give 0.437, below what is worth a warning.
    pairs = [[2, 1], [1, 1], [2, 4], [8, 2], [4, 8]]
    (line,) = varying_together(ranking_of([({"l": pair}, 50.0) for pair in pairs]))
    assert "1 and 2 (+0.6)" in line


def test_importances_of_the_search_take_the_place_of_explained_variance():
    found = effects(ranking_of(grid(lambda a, b, lr: 50 + 8 * b + a)))
    assert shares(found)[0][0] == "chunk lengths, stage 2"
    assert shares(found, {"model.chunk_lengths": 0.2, "optim.lr": 0.8}) == (("lr", 0.8), ("chunk lengths", 0.2))


def test_stage_2_of_the_synthetic_sweep_explains_most():
    found = effects(ranked(synthetic_sweep(80)))
    assert max(found, key=lambda effect: effect.explained).title == "chunk lengths, stage 2"


def test_nothing_is_said_of_a_sweep_without_results():
    assert effects(ranked(result_of([trial(1, state="failed"), trial(2, {"a": 1}, state="failed")]))) == ()
    assert effects(ranked(result_of([]))) == ()
