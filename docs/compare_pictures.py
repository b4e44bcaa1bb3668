"""Takes the pictures of docs/compare.md: MLflow's pages of a sweep's trials, in a real browser.

    python docs/compare_pictures.py --sweep compare

Needs Chromium or Chrome, and the package playwright (it comes with `pip install -e '.[dev]'`). The store is that of
`MLFLOW_TRACKING_URI`, or the embedded one.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from morphmlp.cli import A_PATH, SETTINGS, run
from morphmlp.drill.services import free_port
from morphmlp.errors import ConfigError, TrackingError
from morphmlp.record import Tags
from morphmlp.tracking import find_run, read_runs, tracking_uri

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PARAMETERS = ("network.depths", "network.chunk_lengths")
METRICS = ("network/gmacs", "run/clips_per_s", "test/top1")
"""Axes of the compare view, from left to right."""
_START_S = 120
_WAIT_MS = 60_000
_DRAWN_MS = 6000
"""Time for a page's plots to be drawn."""
_WITHOUT_ASSISTANT = """
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')
"""
"""MLflow unfolds it over a page's right column."""


@click.command(context_settings=SETTINGS)
@click.option("--sweep", required=True, metavar="NAME", help="a sweep, whose finished trials are compared")
@click.option("--output", type=A_PATH, default=Path("docs/compare"), metavar="DIR", help="folder of the pictures")
@click.option("--browser", metavar="FILE", help=f"the browser; by default the first of {', '.join(BROWSERS)}")
def main(sweep: str, output: Path, browser: str | None) -> None:
    """Take pictures of MLflow's pages: of a sweep's best trial, and of all that finished."""
    program = browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise ConfigError(["no Chromium is installed here: `apt install chromium`, or name a browser: --browser FILE"])
    uri = tracking_uri()
    parent = find_run(uri, run_name=sweep)
    if parent is None:
        raise TrackingError(f"the record has no run named {sweep}; `python pipelines/status.py --all` lists them")
    runs = read_runs(uri, dataset=parent.experiment)
    column = f"tags.{Tags.PARENT}"
    trials = runs[runs[column] == parent.run_id] if column in runs else runs[:0]
    if trials.empty:
        raise TrackingError(f"{sweep} has no finished trials")
    best = trials.sort_values("metrics.test/top1")["run_id"].iloc[-1]
    output.mkdir(parents=True, exist_ok=True)
    with _pages(uri) as address, _tab(program) as tab:
        experiment = _experiment_of(address, best)
        tab.goto(f"{address}/#/experiments/{experiment}/runs/{best}?workflowType=machine_learning")
        tab.get_by_text("About this run").wait_for()
        _take(tab, output / "run_page.png")
        ids, of = (json.dumps(names, separators=(",", ":")) for names in (trials["run_id"].tolist(), [experiment]))
        tab.goto(f"{address}/#/compare-runs?runs={ids}&experiments={of}&workflowType=machine_learning")
        _choose_axes(tab)
        _take(tab, output / "parallel_coordinates.png")


@contextmanager
def _pages(uri: str) -> Iterator[str]:
    """The address of MLflow's pages: the server's that keeps the records, or of one that is started for a database."""
    if uri.startswith(("http://", "https://")):
        yield uri
        return
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"],
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", server)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TrackingError("MLflow's server doesn't start here; `make ui` shows why")


def _experiment_of(address: str, run_id: str) -> str:
    with urllib.request.urlopen(f"{address}/api/2.0/mlflow/runs/get?run_id={run_id}", timeout=30) as answer:
        return str(json.load(answer)["run"]["info"]["experiment_id"])


@contextmanager
def _tab(program: str) -> Iterator[Any]:
    """A tab of a browser without window that asks nobody but MLflow's server."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ConfigError(["playwright isn't installed here: pip install playwright"]) from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.set_default_timeout(_WAIT_MS)
        tab.add_init_script(_WITHOUT_ASSISTANT)
        yield tab
        browser.close()


def _choose_axes(tab: Any) -> None:
    """In the compare view's two lists: parameters and metrics."""
    tab.get_by_text("Clear All").click()
    for place, names in enumerate((PARAMETERS, METRICS)):
        box = tab.locator("[role=combobox]").nth(place)
        box.click(force=True)
        for name in names:
            box.fill(name)
            tab.locator("[class*=select-item-option-content]").get_by_text(name, exact=True).click()
        tab.keyboard.press("Escape")


def _take(tab: Any, file: Path) -> None:
    tab.wait_for_timeout(_DRAWN_MS)
    tab.screenshot(path=file)
    print(f"{file}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    run(main)
