import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from invented_frame import invented_frame

from morphmlp.record import Metrics, Tags
from morphmlp.reporting.tables.compute_panel import points_of
from morphmlp.reporting.tables.measured import measured_runs
from morphmlp.reporting.tables.page import section_of, tables_page
from morphmlp.reporting.tables.published import TITLES, load_published
from morphmlp.tasks.scores import TOP1

PUBLISHED = load_published(Path(__file__).parents[4] / "experiments" / "published.yaml")
HOSTILE = "<script>alert(1)</script> & \"quoted\" 'too'"


class Page(HTMLParser):
    """Elements of a page by what a filter looks at, and scripts."""

    def __init__(self, text):
        super().__init__()
        self.marks, self.rows, self.scripts, self.links = [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.scripts += tag == "script"
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if "data-row" in known:
            self.marks.append((known["data-row"], known["data-kind"], known["data-family"]))
        elif "data-kind" in known:
            self.rows.append((known["id"], known["data-kind"], known["data-family"]))


@pytest.fixture(scope="module")
def runs():
    return measured_runs(invented_frame(60))


@pytest.fixture(scope="module")
def page(runs):
    return Page(tables_page(PUBLISHED, runs, list(TITLES), subtitle="some runs"))


def test_every_mark_has_its_row_with_the_same_kind_and_family(page, runs):
    assert set(page.marks) <= set(page.rows)
    measured = {row for row, kind, _ in page.marks if kind == "measured"}
    assert len(measured) == len(runs) == 48  # without the trials
    assert len([row for row, kind, _ in page.marks if kind == "published"]) == 12 + 4 + 4


def test_the_page_needs_no_network_and_has_one_script(page):
    assert page.scripts == 1
    assert [link for link in page.links if not link.startswith("#")] == []


def test_texts_of_users_are_texts(runs):
    tags = {Tags.FINGERPRINT: HOSTILE, Tags.EXPERIMENT: HOSTILE, Tags.GIT_COMMIT: HOSTILE, Tags.DATA_TEST: HOSTILE}
    row = {
        **{"run_id": "abcdef0123", "run_name": HOSTILE, "dataset": HOSTILE, "start_time": pd.Timestamp("2026-01-01")},
        **{"params.task": "classification", f"metrics.{TOP1.test_metric}": 50.0},
        **{f"metrics.{Metrics.TEST_NUM_VIDEOS}": 10.0, **{f"tags.{name}": value for name, value in tags.items()}},
    }
    text = tables_page(PUBLISHED, measured_runs(pd.DataFrame([row])), [HOSTILE], subtitle=HOSTILE)
    assert Page(text).scripts == 1
    assert "alert(1)" in text


def test_a_data_set_without_runs_shows_what_is_published():
    section = section_of(PUBLISHED, [], "ssv1")
    assert [listing.part.kind for listing in section.listings] == ["published", "others"]
    assert section.undrawn == len([row for row in PUBLISHED.others[2].rows if row.gflops_total is None]) == 6


def test_arithmetic_of_published_points_is_what_is_printed_and_else_counted():
    points = {point.row: point for point in points_of(PUBLISHED, [], "ade20k")}
    assert [round(point.gmacs) for point in points.values()] == [44, 43, 60, 78]
    videos = [point.gmacs for point in points_of(PUBLISHED, [], "k400") if point.kind == "published"]
    assert videos == [268, 532, 392, 788]


def test_older_runs_of_the_same_test_are_marked(runs):
    newer = next(run for run in runs if run.dataset == "k400")
    section = section_of(PUBLISHED, [newer, replace(newer, run_id="older")], "k400")
    [measured] = [listing for listing in section.listings if listing.part.kind == "measured"]
    assert [row.older for row in measured.rows] == [False, True]


def test_panels_take_the_colours_of_the_page(runs):
    panel = section_of(PUBLISHED, runs, "k400").panel
    assert not re.search("#(1f2933|5f6c7b|e3e8ee|b5462f|2a6f97|8496a5)", panel)
    assert "var(--measured)" in panel
