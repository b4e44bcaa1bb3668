"""The sweep's page: one HTML file that needs nothing else, for a screen and for paper; its template is `page.html`."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from morphmlp.tuning.report import panels
from morphmlp.tuning.report.effects import Effect, shares, unvaried_stages, varying_together
from morphmlp.tuning.report.ranking import Ranking
from morphmlp.tuning.report.summary import (
    GROUP_TITLES,
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
from morphmlp.tuning.space.space import counted, text_of, title_of

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


def page(
    result: SweepResult,
    ranking: Ranking,
    effects: Sequence[Effect],
    *,
    title: str,
    importances: Mapping[str, float] | None = None,
    note: str | None = None,
) -> str:
    """The whole page as HTML.

    `importances` are by dotted field, where the search weighed them; `note` is a line about what was asked.
    """
    points = ranking.points
    scores = [point.score for point in ranking.scored if point.score is not None]
    unit, per_hour = ranking.time_unit
    rows = {id(point): f"#point-{place}" for place, point in enumerate(points, start=1)}
    weights = shares(effects, importances)
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
        stage_effects=list(_stage_effects(ranking, effects)),
        whole_effects=[
            (effect, panels.effect_panel(ranking, effect, span=panels.common_span([effect]), strongest=False))
            for effect in effects
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
        replaced=_replaced(result),
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


def _stage_effects(ranking: Ranking, effects: Sequence[Effect]) -> Iterator[dict[str, object]]:
    """For each list of numbers its verdict, the panels of its stages, and the stages that never vary."""
    staged = [effect for effect in effects if effect.stage is not None]
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


def _replaced(result: SweepResult) -> list[str]:
    """Each point that others took the place of, and by which."""
    pairs = {(title_of(t.replaces), t.title): None for t in result.trials if t.replaces is not None}
    return [f"{asked} → {taken}" for asked, taken in pairs]
