"""The page of 500 runs in a real browser: what one sees, hovers over and filters."""

import time
from pathlib import Path

import pytest
from chromium import chromium, needs_chromium
from invented_frame import invented_frame

from morphmlp.reporting.tables.measured import measured_runs
from morphmlp.reporting.tables.page import tables_page
from morphmlp.reporting.tables.published import TITLES, load_published

PUBLISHED = load_published(Path(__file__).parents[4] / "experiments" / "published.yaml")
pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def runs():
    return measured_runs(invented_frame(500))


@pytest.fixture(scope="module")
def file(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "tables.html"
    path.write_text(tables_page(PUBLISHED, runs, list(TITLES), subtitle="500 runs"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, file):
    """The page, which may neither complain nor ask for anything else."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert complaints == []
    assert requests == [file.as_uri()]
    page.close()


def shown(page, what):
    return page.locator(f"{what}:visible").count()


def test_the_page_of_500_runs_opens_within_seconds(browser, file):
    page = browser.new_page()
    began_s = time.perf_counter()
    page.goto(file.as_uri())
    assert time.perf_counter() - began_s < 10  # 0.7 s where nothing else runs
    assert page.locator("tr[data-kind=measured]").count() == 400
    page.close()


def test_hovering_over_a_mark_shows_its_run(page, runs):
    run = [run for run in runs if run.dataset == "k400"][7]
    assert not page.locator("#tip").is_visible()
    page.locator('[data-row="k400-measured-7"]').first.hover(force=True)
    text = page.locator("#tip").inner_text()
    assert text.startswith(f"{run.identity}\ntop-1 {run.metrics['test/top1']:.1f}, 95 % ")
    assert f"test ids {run.test_copy}" in text


def test_filters_leave_what_was_asked_for(page, runs):
    every = len([run for run in runs if run.dataset == "ssv2"])
    page.select_option("#dataset", "ssv2")
    assert shown(page, "section[data-dataset]") == 1
    assert shown(page, "tr[data-kind=measured]") == shown(page, "figure [data-kind=measured]") == every
    page.uncheck("#kinds input[value=measured]")
    assert shown(page, "tr[data-kind=measured]") == shown(page, "figure [data-kind=measured]") == 0
    page.uncheck("#families input[value=attention]")
    assert shown(page, "tr[data-family=attention]") == shown(page, "figure [data-family=attention]") == 0
    assert shown(page, "tr[data-kind=published]") == shown(page, "figure [data-kind=published]") == 4
    run = next(run for run in runs if run.dataset == "ssv2")
    page.check("#kinds input[value=measured]")
    page.fill("#words", run.run_id[:8])
    assert shown(page, "tr[data-kind=measured]") == shown(page, "figure [data-kind=measured]") == 1


def test_older_runs_go_where_the_latest_are_asked_for(page):
    page.select_option("#dataset", "imagenet")
    before = shown(page, "tr[data-kind=measured]")
    older = page.locator("tr[data-older][id^=imagenet]").count()
    page.check("#latest")
    assert 0 < shown(page, "tr[data-kind=measured]") == before - older < before


def test_a_click_on_a_heading_sorts(page):
    table = page.locator("section[data-dataset=k400] table").nth(1)
    column = table.locator("thead th").all_inner_texts().index("top-1")
    for sign in (1, -1):
        table.locator("thead th").nth(column).click()
        cells = [
            float(text)
            for text in table.locator(f"tbody td:nth-child({column + 1})").evaluate_all(
                "cells => cells.map((cell) => cell.firstChild.textContent)"
            )
        ]
        assert cells == sorted(cells, reverse=sign < 0)


@pytest.mark.parametrize("look", [("light", "rgb(255", "rgb(31"), ("dark", "rgb(29", "rgb(228")], ids=["day", "night"])
@pytest.mark.parametrize("width", [420, 1400])
def test_by_day_and_by_night_on_any_width_nothing_hangs_over(browser, file, look, width):
    scheme, paper, ink = look
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(file.as_uri())
    style = "section => [getComputedStyle(section).backgroundColor, getComputedStyle(section).color]"
    background, colour = page.locator("section").first.evaluate(style)
    assert background.startswith(paper)
    assert colour.startswith(ink)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
