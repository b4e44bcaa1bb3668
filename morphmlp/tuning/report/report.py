"""The files that a sweep ends with: its page, its picture, and its best points as experiment files.

The page is one HTML file that needs nothing else, for a screen and for paper; its template is `page.html`.
"""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import config_to_yaml
from morphmlp.errors import SweepError
from morphmlp.files import atomic_write
from morphmlp.tuning.report import panels
from morphmlp.tuning.report.effects import Effect, effects, shares, unvaried_stages, varying_together
from morphmlp.tuning.report.ranking import RankedPoint, Ranking, ranked
from morphmlp.tuning.report.summary import (
    GROUP_TITLES,
    PRINTED,
    PRINTED_NOTE,
    STATES,
    answer,
    checkpoints_summary,
    costs_text,
    field_titles,
    impossible_groups,
    length_text,
    number,
    reasons,
    state_counts,
    states_text,
)
from morphmlp.tuning.run.trials import SweepResult
from morphmlp.tuning.space.space import counted, label_of, text_of, title_of

PAGE_FILE, PICTURE_FILE = "sweep_report.html", "sweep_report.png"
MOST_CLOSE = 5
"""The best point and those that can't be distinguished from it."""
MOST_ON_FRONTS = 10
MOST_ROWS = 50
"""Points that the table shows at once; a tick shows the others."""
MOST_VALUES = 14
MOST_NAMED = 5
"""Trials or points next to a reason; the others are folded away."""
MOST_LISTED = 200
FRONT_LETTERS = {"GMAC": "G", "params": "P", "clips/s": "C", "time": "T"}

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,  # every text of the user is escaped; only panels, which escape theirs, are marked as HTML
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(
    result: SweepResult,
    folder: Path,
    *,
    title: str,
    importances: Mapping[str, float] | None = None,
    note: str | None = None,
) -> tuple[Path, ...]:
    """Write the page and the picture; both say the same.

    `importances` are by dotted field, where the search weighed them; `note` is a line about what was asked.
    """
    ranking = ranked(result)
    found = effects(ranking)
    written = folder / PAGE_FILE, folder / PICTURE_FILE
    atomic_write(written[0], page(result, ranking, found, title=title, importances=importances, note=note))
    atomic_write(written[1], panels.picture(ranking, found, title=title))
    return written


def write_winners(result: SweepResult, configs: Mapping[str, ExperimentConfig], folder: Path) -> tuple[Path, ...]:
    """Write a file for the best point, for those indistinguishable from it, and for those on a front of some cost.

    Files are called `<rank>_<values>.yaml`; comments on top say where the values come from.

    `configs` has each point's experiment by the point's title.

    Raises:
        SweepError: A point's experiment isn't given.
    """
    ranking = ranked(result)
    written = []
    for point in winning(ranking):
        if point.title not in configs:
            raise SweepError(f"winners: {point.title}: its experiment isn't among the {len(configs)} given")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{point.rank:03d}_{label_of(point.point)}.yaml"
        comment = _comment(result, point, len(ranking.points), file)
        atomic_write(file, f"{comment}{config_to_yaml(configs[point.title])}")
        written.append(file)
    return tuple(written)


def winning(ranking: Ranking) -> list[RankedPoint]:
    """The best point, those indistinguishable from it, and those on a front of some cost."""
    close = [point for point in ranking.points if point.group in ("best", "indistinguishable")][:MOST_CLOSE]
    return [*close, *[point for point in ranking.points if point.fronts and point not in close][:MOST_ON_FRONTS]]


def _comment(result: SweepResult, point: RankedPoint, number: int, file: Path) -> str:
    group = f", {point.group}" + (" from the best" if point.group == "indistinguishable" else "")
    lines = [
        f"Sweep {result.run_name}, MLflow run {result.parent_run_id}: rank {point.rank} of {number} points{group}.",
        f"Values: {json.dumps(dict(point.point))}",
        f"Test {result.primary.title} {point.score}; on the front of: {', '.join(point.fronts) or 'nothing'}.",
        f"Runs: {', '.join(trial.run_id or 'none' for trial in point.finished)}",
        f"python pipelines/train.py --config {file}",
    ]
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)


def page(
    result: SweepResult,
    ranking: Ranking,
    found: Sequence[Effect],
    *,
    title: str,
    importances: Mapping[str, float] | None = None,
    note: str | None = None,
) -> str:
    """The whole page as HTML, with the arguments of `write_report`."""
    points = ranking.points
    scores = [point.score for point in ranking.scored if point.score is not None]
    unit, per_hour = ranking.time_unit
    rows = {id(point): f"#point-{place}" for place, point in enumerate(points, start=1)}
    weights = shares(found, importances)
    return _TEMPLATES.get_template("page.html").render(
        result=result,
        ranking=ranking,
        primary=ranking.primary,
        title=title,
        answer=answer(ranking),
        facts=_facts(result, ranking),
        note=note,
        asked=_asked(ranking),
        seeds=sorted({trial.seed for trial in result.trials}),
        fields=field_titles(ranking),
        low=min((score.low for score in scores), default=0.0),
        high=max((score.high for score in scores), default=100.0),
        time_unit=unit,
        costs_of=partial(costs_text, per_hour=per_hour),
        cost_panels=[panels.cost_panel(ranking, cost, rows) for cost in ranking.shown_costs()],
        same_costs=_same_costs(ranking),
        stage_effects=list(_stage_effects(ranking, found)),
        whole_effects=[
            (effect, panels.effect_panel(ranking, effect, span=panels.common_span([effect]), strongest=False))
            for effect in found
            if effect.stage is None
        ],
        warnings=varying_together(ranking),
        shares=panels.shares_panel(weights) if len(weights) > 1 else None,
        weighed=bool(importances),
        states=[
            (STATES[state], [trial for trial in result.trials if trial.state == state])
            for state, _ in state_counts(result.trials)
        ],
        impossible=impossible_groups(result),
        replaced=list(
            dict.fromkeys(
                f"{title_of(trial.replaces)} → {trial.title}" for trial in result.trials if trial.replaces is not None
            )
        ),
        checkpoints=checkpoints_summary(result),
        **_WORDS,
        most_rows=MOST_ROWS if len(points) > MOST_ROWS else len(points),
    )


_WORDS = {
    "colours": panels.COLOURS,
    "front_colour": panels.FRONT,
    "group_titles": GROUP_TITLES,
    "letters": FRONT_LETTERS,
    "most_listed": MOST_LISTED,
    "most_named": MOST_NAMED,
    "most_values": MOST_VALUES,
    "printed": PRINTED,
    "printed_note": PRINTED_NOTE,
    "counted": counted,
    "effect_size": panels.effect_size,
    "length_text": length_text,
    "number": number,
    "reasons": reasons,
    "states_text": states_text,
    "text_of": text_of,
}
"""Constants and functions that the template uses."""


def _facts(result: SweepResult, ranking: Ranking) -> list[tuple[str, str]]:
    cpu_s = sum(trial.cpu_s or 0 for trial in result.trials)
    return [
        ("points", number(len(ranking.points))),
        ("trials", number(len(result.trials))),
        ("finished", number(sum(trial.state == "finished" for trial in result.trials))),
        ("wall time", str(datetime.timedelta(seconds=round(result.wall_s)))),
        ("CPU time", str(datetime.timedelta(seconds=round(cpu_s)))),
    ]


def _asked(ranking: Ranking) -> dict[str, list[str]]:
    """Each field's different values."""
    fields = ranking.points[0].point if ranking.points else ()
    return {field: list(dict.fromkeys(text_of(point.point[field]) for point in ranking.points)) for field in fields}


def _same_costs(ranking: Ranking) -> list[str]:
    """Exact costs in which no points differ, with their number."""
    if not ranking.scored:
        return []
    keys = {cost.key for cost in ranking.shown_costs()}
    first = ranking.scored[0]
    costs = {"GMAC": ("GMAC of one view", first.gmacs), "params": ("million parameters", first.params / 1e6)}
    return [f"{title} ({number(value)})" for key, (title, value) in costs.items() if key not in keys]


def _stage_effects(ranking: Ranking, found: Sequence[Effect]) -> Iterator[dict[str, object]]:
    """For each list of numbers its verdict, the panels of its stages, and the stages that never vary."""
    staged = [effect for effect in found if effect.stage is not None]
    for field in dict.fromkeys(effect.field for effect in staged):
        own = [effect for effect in staged if effect.field == field]
        clear = [effect for effect in own if effect.beyond_noise]
        strongest = max(clear, key=lambda effect: effect.explained or 0, default=None)
        verdict = "no stage's effect is beyond the noise"
        if strongest is not None:
            verdict = f"stage {strongest.stage} matters most"
        span = panels.common_span(own)
        yield {
            "title": f"{own[0].name} per stage: {verdict}",
            "panels": [
                (effect, panels.effect_panel(ranking, effect, span=span, strongest=effect is strongest))
                for effect in own
            ],
            "unvaried": unvaried_stages(ranking, field),
        }
