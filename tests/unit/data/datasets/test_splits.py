"""How videos are divided: shares, classes, sources, and what doesn't move."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.data.datasets.splits import SplitRule, assign_splits, groups_by_pattern
from morphmlp.errors import ConfigError

RULES = [SplitRule.parse(text, seed=seed) for text in ("80/10/10", "70/30", "1/1/1") for seed in (0, 7)]


def names_of(counts):
    """`class/number` for so many videos of each class."""
    return [f"class {place}/{number}" for place, count in enumerate(counts) for number in range(count)]


def class_of(name):
    return name.partition("/")[0]


def divided(rule, names, groups=None, kept=None):
    splits = assign_splits(
        rule,
        groups=groups or names,
        classes=[class_of(name) for name in names],
        kept=[(kept or {}).get(name) for name in names],
    )
    return dict(zip(names, splits, strict=True))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("counts", [(10, 10), (100, 20, 3), (3, 3, 3, 3), (57,)], ids=str)
def test_every_class_has_its_shares_in_every_split_to_within_a_video_and_none_is_empty(rule, counts):
    found = divided(rule, names_of(counts))
    for place, total in enumerate(counts):
        held = Counter(split for name, split in found.items() if class_of(name) == f"class {place}")
        assert held.keys() == set(rule.splits)
        for split, share in zip(rule.splits, rule.shares, strict=True):
            wanted = total * share / sum(rule.shares)
            # A split that would have none gets one, out of training's share.
            assert abs(held[split] - wanted) <= (len(rule.splits) - 1 if min(counts) < 10 else 1)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_order_of_the_files_does_not_matter_and_the_seed_does(rule):
    names = names_of((40, 25))
    assert divided(rule, names[::-1]) == divided(rule, names)
    other = SplitRule(shares=rule.shares, seed=rule.seed + 1)
    assert divided(other, names) != divided(rule, names)


def test_accented_names_are_divided_alike_in_either_form_of_unicode():
    rule = RULES[0]
    assert rule.order("Gr\u00fcn") == rule.order("Gru\u0308n")


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    later=st.lists(st.tuples(st.integers(0, 5), st.integers(100, 105)), max_size=8, unique=True),
    source=st.integers(1, 5),
    rule=st.sampled_from(RULES),
)
def test_videos_that_are_added_later_move_no_others_and_sources_stay_together(counts, later, source, rule):
    def group(name):
        return f"source {int(name.rpartition('/')[2]) // source}"

    before = names_of(counts)
    first = divided(rule, before, groups=[group(name) for name in before])
    after = [*before, *(f"class {place}/{number}" for place, number in later)]
    second = divided(rule, after, groups=[group(name) for name in after], kept=first)
    assert {name: second[name] for name in before} == first
    for found in (first, second):
        splits = {}
        for name, split in found.items():
            assert splits.setdefault(group(name), split) == split


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.sampled_from(RULES))
def test_a_class_with_enough_sources_is_in_every_split(counts, rule):
    names = names_of(counts)
    found = divided(rule, names, groups=[f"{class_of(name)}-{int(name.rpartition('/')[2]) // 3}" for name in names])
    for place, count in enumerate(counts):
        if -(-count // 3) >= len(rule.splits):
            held = {split for name, split in found.items() if class_of(name) == f"class {place}"}
            assert held == set(rule.splits)


@pytest.mark.parametrize("text", ["80", "80/10/10/0", "80/0/20", "80/20%", "a/b", "", "80/-10/30"])
def test_shares_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="--split"):
        SplitRule.parse(text)


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"_g\d+", ["_g01", "_g01", "_g02"]),
        (r"(.+)_g(\d+)_", ["run\t01", "run\t01", "jump\t02"]),
    ],
)
def test_a_pattern_tells_the_source_by_the_file_name(pattern, groups):
    assert groups_by_pattern(["run_g01_c1.avi", "run_g01_c2.avi", "jump_g02_c1.avi"], pattern) == groups


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("(", "is no regular expression"), (r"_s\d+", r"1 of 2 file names don't match '_s\\d+', as 'b.mp4'")],
)
def test_a_pattern_that_fits_not_is_refused(pattern, told):
    with pytest.raises(ConfigError) as caught:
        groups_by_pattern(["a_s1.mp4", "b.mp4"], pattern)
    assert told in str(caught.value)
