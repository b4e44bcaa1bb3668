"""The page: complete, well-formed, safe, and readable however many trials it shows."""

import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from synthetic_sweeps import HOSTILE, result_of, synthetic_sweep, trial

from morphmlp.tuning.report.page import MOST_ROWS, page
from morphmlp.tuning.report.ranking import ranked
from morphmlp.tuning.report.svg import STATES, number, scale, ticks

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Tags, attributes and texts of a page whose tags must all be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def read(sweep, **more):
    return Reader(page(sweep, ranked(sweep), title="a sweep", **more))


@pytest.mark.parametrize("count", [1, 12, 500])
def test_the_page_is_well_formed_and_needs_nothing_else(count):
    shown = read(synthetic_sweep(count))
    assert not {"script", "link", "img", "iframe", "object"} & set(shown.tags)
    assert not {"src", "href", "onclick", "onload", "style"} & {name for name, _ in shown.attributes}
    assert [value for _, value in shown.attributes if value and re.match(r"(?!http://www.w3.org)https?:", value)] == []
    assert "url(" not in shown.text
    assert "@import" not in shown.text


def test_hostile_texts_stay_texts():
    bad = "<img src=x onerror=alert(1)>\"'&"
    values = {"model.init": bad}
    sweep = result_of(
        [trial(1, values, title=bad), trial(2, {"model.init": HOSTILE}, title=bad, state="failed", error=HOSTILE)],
        synthetic_sweep(3).impossible,
        run_name=bad,
    )
    shown = Reader(page(sweep, ranked(sweep), title=bad, note=bad, importances={bad: 1.0, "b": 0.5}))
    assert not {"img", "script"} & set(shown.tags)
    assert shown.text.count(bad) >= 4
    assert HOSTILE in shown.text


def test_every_end_is_told_by_shape_and_words_with_its_reason():
    trials = [trial(n, {"a": n}, state=state, error=f"why {state}") for n, state in enumerate(STATES, 1)]
    shown = read(result_of(trials))
    for state, look in STATES.items():
        assert f"1 {look.words}" in shown.text
        assert state == "finished" or f"why {state}" in shown.text
    assert len({look.shape for look in STATES.values()}) == len({look.colour for look in STATES.values()}) == 5


def test_each_trial_has_a_mark_of_its_own_with_a_hover_text():
    sweep = synthetic_sweep(500)
    shown = read(sweep)
    for one in (sweep.trials[0], sweep.trials[-1]):
        assert sum(text.startswith(f"trial {one.number}: {one.title}, seed") for text in shown.texts) == 1


def test_a_long_table_shows_the_best_and_folds_the_rest_away():
    sweep = synthetic_sweep(500)
    html = page(sweep, ranked(sweep), title="t")
    head, _, folded = html.partition("<details><summary>450 further points</summary>")
    assert head.count("of 2</td>") == MOST_ROWS
    assert folded.partition("</details>")[0].count("of 2</td>") == 450
    few = synthetic_sweep(12)
    assert "further point" not in page(few, ranked(few), title="t")


def test_impossible_points_are_grouped_by_rule_and_dont_flood_the_page():
    few, many = synthetic_sweep(12), synthetic_sweep(12)
    many = dataclasses.replace(many, impossible=synthetic_sweep(1600).impossible)
    assert len(many.impossible) == 533
    shown = read(many).text
    assert "533 points left out" in shown
    assert "533 points: model.chunk_lengths: stage 3: chunk length … must divide its … tokens" in shown
    assert "and 333 more in sweep_result.json" in shown
    html = page(many, ranked(many), title="t")
    assert html.count("<li><b>533 points") == 1
    assert len(html) - len(page(few, ranked(few), title="t")) < 30_000


def test_replaced_points_are_told_with_what_was_asked_for():
    one = trial(1, replaces={"model.chunk_lengths": [5, 8, 4, 1]})
    assert "[5 8 4 1] → [8 8 4 1]" in read(result_of([one])).text


def test_a_cost_that_is_the_same_for_all_has_no_axis():
    same = result_of([trial(n, {"a": n}, wall_s=50.0 * n, score=50.0 + n) for n in (1, 2, 3)])
    html = page(same, ranked(same), title="t")
    assert html.count('aria-label="test top-1 against') == 1
    assert "The same for all points, so not drawn: GMAC of one view (0.0123), million parameters (1.23)." in html
    varied = synthetic_sweep(200)
    assert page(varied, ranked(varied), title="t").count('aria-label="test top-1 against') == 4


def test_the_page_names_the_stage_that_cares():
    assert "chunk lengths per stage: stage 2 cares most" in read(synthetic_sweep(80)).text
    flat = result_of([trial(n, {"l": [a, b]}) for n, (a, b) in enumerate(((1, 1), (1, 2), (2, 1), (2, 2)))])
    assert "no stage's effect is beyond the noise" in read(flat).text


def test_a_stage_that_never_varies_is_named_in_place_of_a_picture():
    shown = read(synthetic_sweep(80)).text
    assert "The same in all points, so not drawn: stage 4 (1)." in shown
    assert "chunk lengths in stage 4" not in shown


def test_the_searchs_importances_stand_on_the_page():
    sweep = result_of([trial(n, {"optim.lr": 0.1 * (n % 2), "x.y": n}, score=50.0 + n) for n in range(6)])
    shown = read(sweep, importances={"optim.lr": 0.25, "x.y": 0.75})
    assert "as the search weighed them" in shown.text
    assert "75 %" in shown.text


def test_nothing_is_drawn_outside_of_its_picture():
    sweep = synthetic_sweep(60)
    pictures = re.findall(r'<svg viewBox="0 0 (\S+) (\S+)".*?</svg>', page(sweep, ranked(sweep), title="t"))
    whole = re.findall(r"<svg .*?</svg>", page(sweep, ranked(sweep), title="t"))
    assert len(pictures) == len(whole) > 60
    for (width, height), drawn in zip(pictures, whole, strict=True):
        for x in re.findall(r' (?:x|cx|x1|x2)="(\S+)"', drawn):
            assert -1 <= float(x) <= float(width) + 1
        for y in re.findall(r' (?:y|cy|y1|y2)="(\S+)"', drawn):
            assert -1 <= float(y) <= float(height) + 1


def test_ticks_are_round_few_and_inside():
    for low, high in ((0, 1), (0.0187, 0.0202), (55, 86), (1234, 98765), (96.2, 96.9)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 11
        assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
        steps = [after - before for before, after in pairwise(found)]
        assert max(steps) == pytest.approx(min(steps))
    assert ticks(0.01, 200, log=True, most=5) == sorted(ticks(0.01, 200, log=True, most=5))
    assert len(ticks(0.01, 200, log=True, most=5)) <= 5
    assert scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5)


def test_numbers_are_written_as_people_write_them():
    written = [number(value) for value in (0, 0.0123456, 1.2, 12.345, 1234.5, 0.000012)]
    assert written == ["0", "0.0123", "1.2", "12.3", "1,234", "1.2e-05"]
