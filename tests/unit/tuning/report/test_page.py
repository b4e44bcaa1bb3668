"""The page: complete, well-formed, safe, and readable however many trials it shows."""

import dataclasses
import functools
import re
from html.parser import HTMLParser

import pytest
from synthetic_sweeps import HOSTILE, result_of, synthetic_sweep, trial

from morphmlp.tasks import scores
from morphmlp.tuning.report import report as pages
from morphmlp.tuning.report.effects import effects
from morphmlp.tuning.report.ranking import ranked
from morphmlp.tuning.report.report import MOST_ROWS
from morphmlp.tuning.report.summary import STATES

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


@functools.cache
def page_of(count):
    return page(synthetic_sweep(count))


def page(sweep, **more):
    ranking = ranked(sweep)
    return pages.page(sweep, ranking, effects(ranking), **{"title": "a sweep", **more})


def read(sweep, **more):
    return Reader(page(sweep, **more))


@pytest.mark.parametrize("count", [1, 12, 500])
def test_the_page_is_well_formed_and_needs_nothing_else(count):
    shown = Reader(page_of(count))
    assert not {"link", "img", "iframe", "object"} & set(shown.tags)
    names = {name for name, _ in shown.attributes}
    assert not {"src", "href", "onclick", "onload", "target"} & names
    links = [value for name, value in shown.attributes if name == "xlink:href"]
    assert all(link.startswith("#") for link in links)
    assert [value for _, value in shown.attributes if value and re.match(r"(?!http://www.w3.org)https?:", value)] == []
    assert "@import" not in shown.text


def test_500_points_take_about_a_megabyte():
    assert len(page_of(500)) < 1_100_000


def test_every_scored_point_is_in_each_cost_panel_with_a_hover_text_and_a_link_to_its_row():
    sweep = synthetic_sweep(60, widths=True)
    html, ranking = page(sweep), ranked(sweep)
    panels = re.findall(r'<svg [^>]*aria-label="test top-1 against.*?</svg>', html, re.DOTALL)
    assert len(panels) == 4
    rows = {f"#point-{place}": point for place, point in enumerate(ranking.points, 1) if point.score is not None}
    for panel in panels:
        marks = re.findall(r'<a xlink:href="(#[^"]*)">(.*?)</a>', panel, re.DOTALL)
        assert sorted(link for link, _ in marks) == sorted(rows)
        for link, mark in marks:
            assert f"{rows[link].title}\n{rows[link].score}\n" in mark
            assert f'id="{link[1:]}"' in html


def test_hostile_texts_stay_texts():
    bad = "<img src=x onerror=alert(1)>\"'& $\\frac{$ {{ 7 * 7 }}"
    values = {"model.init": bad}
    sweep = result_of(
        [
            trial(1, values, title=bad),
            trial(2, {"model.init": HOSTILE}, title=bad, state="failed", error=HOSTILE),
            trial(3, {"model.init": "b"}, title="b", wall_s=5.0),
        ],
        synthetic_sweep(3).impossible,
        run_name=bad,
    )
    shown = read(sweep, title=bad, note=bad, importances={bad: 1.0, "b": 0.5})
    assert "img" not in shown.tags
    assert shown.tags.count("script") == 1
    assert shown.text.count(bad) >= 4
    assert HOSTILE in shown.text


def test_the_script_holds_no_text_of_the_user():
    (one,) = re.findall(r"<script>.*?</script>", page_of(12), re.DOTALL)
    (other,) = re.findall(r"<script>.*?</script>", page(result_of([trial(1)])), re.DOTALL)
    assert re.sub(r">= \d+", "", one) == re.sub(r">= \d+", "", other)


def test_every_end_is_shown_by_mark_and_words_with_its_reason():
    trials = [trial(n, {"a": n}, state=state, error=f"why {state}") for n, state in enumerate(STATES, 1)]
    shown = read(result_of(trials))
    for state, look in STATES.items():
        assert f"1 {look.words}" in shown.text
        assert state == "finished" or f"why {state}" in shown.text
    assert len({look.mark for look in STATES.values()}) == len(STATES) == 5


def test_each_trial_has_a_mark_of_its_own_with_a_hover_text():
    sweep = synthetic_sweep(500)
    hovers = [value for name, value in Reader(page_of(500)).attributes if name == "title"]
    for one in (sweep.trials[0], sweep.trials[-1]):
        assert sum(text.startswith(f"trial {one.number}: {one.title}, seed") for text in hovers) == 1


def test_a_long_table_shows_the_best_and_the_rest_at_a_tick():
    html = page_of(500)
    assert "show 450 further points" in html
    assert len(re.findall(r'<tr id="point-\d+">', html)) == MOST_ROWS
    assert len(re.findall(r'<tr id="point-\d+" class="more">', html)) == 450
    assert "further point" not in page_of(12)


def test_impossible_points_are_grouped_by_rule_and_dont_flood_the_page():
    few, many = synthetic_sweep(12), synthetic_sweep(12)
    many = dataclasses.replace(many, impossible=synthetic_sweep(1600).impossible)
    assert len(many.impossible) == 533
    shown = read(many).text
    assert "533 points left out" in shown
    assert "533 points: model.chunk_lengths: stage 3: chunk length … must divide its … tokens" in shown
    assert "and 333 more in sweep_result.json" in shown
    html = page(many)
    assert html.count("<li><b>533 points") == 1
    assert len(html) - len(page(few)) < 30_000


def test_replaced_points_stand_with_what_was_asked_for():
    one = trial(1, replaces={"model.chunk_lengths": [5, 8, 4, 1]})
    assert "[5 8 4 1] → [8 8 4 1]" in read(result_of([one])).text


def test_a_cost_that_is_the_same_for_all_has_no_axis():
    same = result_of([trial(n, {"a": n}, wall_s=50.0 * n, score=50.0 + n) for n in (1, 2, 3)])
    html = page(same)
    assert html.count('aria-label="test top-1 against') == 1
    assert "The same for all points, so not drawn: GMAC of one view (0.0123), million parameters (1.23)." in html
    varied = synthetic_sweep(200)
    assert page(varied).count('aria-label="test top-1 against') == 4


def test_the_page_names_the_stage_that_matters_most():
    assert "chunk lengths per stage: stage 2 matters most" in read(synthetic_sweep(80)).text
    flat = result_of([trial(n, {"l": [a, b]}) for n, (a, b) in enumerate(((1, 1), (1, 2), (2, 1), (2, 2)))])
    assert "no stage's effect is beyond the noise" in read(flat).text


def test_a_stage_that_never_varies_is_named_in_place_of_a_picture():
    shown = read(synthetic_sweep(80)).text
    assert "The same in all points, so not drawn: stage 4 (1)." in shown
    assert "chunk lengths, stage 1" in shown
    assert "chunk lengths, stage 4" not in shown


def test_the_searchs_importances_stand_on_the_page():
    sweep = result_of([trial(n, {"optim.lr": 0.1 * (n % 2), "x.y": n}, score=50.0 + n) for n in range(6)])
    shown = read(sweep, importances={"optim.lr": 0.25, "x.y": 0.75})
    assert "as the search weighed them" in shown.text
    assert "75 %" in shown.text


def test_the_page_speaks_of_the_tasks_own_score(monkeypatch):
    monkeypatch.setitem(scores.SCORES, "segmentation", (scores.ScoreName(key="miou", title="mIoU"),))
    sweep = dataclasses.replace(synthetic_sweep(12), task="segmentation")
    html = page(sweep)
    assert "Test mIoU against cost" in html
    assert "test mIoU (%)" in html
    assert "top-1" not in html


def test_marks_lie_inside_of_their_panel():
    panels = re.findall(r'<svg [^>]*viewBox="0 0 (\S+) (\S+)"[^>]*>(.*?)</svg>', page(synthetic_sweep(60)), re.DOTALL)
    assert len(panels) == 6  # two costs, shares, three stages
    for width, height, drawn in panels:
        for x, y in re.findall(r'<use [^>]*x="(\S+)" y="(\S+)"', drawn):
            assert -1 <= float(x) <= float(width) + 1
            assert -1 <= float(y) <= float(height) + 1


def test_what_the_paper_prints_is_a_column_of_the_points_where_it_prints_something():
    sweep = result_of([trial(1, {"a": 1}, printed="79.6 (<T>, Table 7)"), trial(2, {"a": 2})])
    html, shown = page(sweep), read(sweep)
    assert "79.6 (<T>, Table 7)" in shown.text
    assert "The paper's top-1: as arXiv 2111.12527v1 prints it" in shown.text
    (table,) = re.findall(r'<table class="points">.*?</table>', html, re.DOTALL)
    columns = re.search(r"<thead>.*?</thead>", table, re.DOTALL)[0].count("<th") - 1
    spans = {int(span) for span in re.findall(r'colspan="(\d+)"', table)}
    cells = {row.count("<td") for row in re.findall(r'<tr id="point.*?</tr>', table, re.DOTALL)}
    assert cells == spans == {columns}
    assert "The paper" not in page(result_of([trial(1)]))
