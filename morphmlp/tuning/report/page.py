"""The sweep's page: one HTML file that needs nothing else, for a screen and for paper."""

import datetime
import functools
from collections.abc import Iterator, Mapping, Sequence

from morphmlp.tuning.report.effects import Effect, effects, shares, unvaried_stages, varying_together
from morphmlp.tuning.report.figures import (
    cost_panel,
    effect_rows,
    interval_bar,
    legend,
    share_bars,
    stage_panel,
    stage_span,
    state_glyph,
    trial_glyphs,
)
from morphmlp.tuning.report.ranking import Group, RankedPoint, Ranking
from morphmlp.tuning.report.style import HOW_TO_READ, STYLE
from morphmlp.tuning.report.svg import STATES, esc, number
from morphmlp.tuning.report.words import (
    answer,
    checkpoints_of,
    counted,
    impossible_groups,
    never_started,
    reasons,
    state_counts,
    states_of,
)
from morphmlp.tuning.run.trials import SweepResult, Trial
from morphmlp.tuning.space.space import short_names, text_of, title_of

MOST_ROWS = 50
"""Points in the table; the others are folded away below it."""
MOST_VALUES = 14
MOST_NAMED = 5
"""Trials or points that stand beside a reason; the others are folded away."""
MOST_LISTED = 200
_LETTERS = {"GMAC": "G", "params": "P", "clips/s": "C", "time": "T"}
_GROUP_TITLES: Mapping[Group, str] = {
    "best": "best",
    "not separable": "not separable from the best",
    "behind": "behind the best, beyond the noise",
    "partly finished": "not all seeds finished; compared with nobody",
    "without result": "no seed finished",
}


def page(
    result: SweepResult,
    ranking: Ranking,
    *,
    title: str,
    importances: Mapping[str, float] | None = None,
    note: str | None = None,
) -> str:
    """The whole page as HTML.

    Args:
        result: The sweep.
        ranking: Its points.
        title: The page's heading.
        importances: By dotted field, where a search weighed them.
        note: A line about what was asked.
    """
    sections = [
        _head(result, ranking, title=title),
        *_asked(result, ranking, note),
        *_table(ranking),
        *_costs(ranking),
        *_effects(ranking, importances),
        *_states(result.trials),
        *_left_out(result),
        HOW_TO_READ,
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{esc(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _head(result: SweepResult, ranking: Ranking, *, title: str) -> str:
    cpu_s = sum(trial.cpu_s or 0 for trial in result.trials)
    facts = [
        ("points", number(len(ranking.points))),
        ("trials", number(len(result.trials))),
        ("finished", number(sum(trial.state == "finished" for trial in result.trials))),
        ("wall time", _time(result.wall_s)),
        ("CPU time", _time(cpu_s)),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f"<header><h1>{esc(title)}</h1>"
        f"<p class='run'>run {esc(result.run_name)}, MLflow {esc(result.parent_run_id)}</p>"
        f"<p class='answer'>{esc(answer(ranking))}</p><dl class='facts'>{cells}</dl></header>"
    )


def _asked(result: SweepResult, ranking: Ranking, note: str | None) -> Iterator[str]:
    yield "<section><h2>What was asked</h2>"
    if note:
        yield f"<p>{esc(note)}</p>"
    rows = []
    for field in ranking.points[0].point if ranking.points else ():
        texts = list(dict.fromkeys(text_of(point.point[field]) for point in ranking.points))
        more = f" and {len(texts) - MOST_VALUES} more" if len(texts) > MOST_VALUES else ""
        shown = ", ".join(f"<code>{esc(value)}</code>" for value in texts[:MOST_VALUES])
        rows.append(f"<tr><th><code>{esc(field)}</code></th><td>{shown}{more}</td></tr>")
    seeds = ", ".join(str(seed) for seed in sorted({trial.seed for trial in result.trials}))
    rows.append(f"<tr><th>seeds</th><td>{esc(seeds)}</td></tr>")
    yield f"<table class='plain'>{''.join(rows)}</table></section>"


def _table(ranking: Ranking) -> Iterator[str]:
    if not ranking.points:
        return
    scores = [point.score for point in ranking.scored if point.score is not None]
    low = min((score.low for score in scores), default=0.0)
    high = max((score.high for score in scores), default=100.0)
    fields = [name.replace("_", " ") for name in short_names(list(ranking.points[0].point))]
    unit, per_hour = ranking.time_unit
    heads = [
        "<th class='n'>rank</th>",
        *(f"<th>{esc(name)}</th>" for name in fields),
        "<th class='n'>seeds finished</th><th class='n'>top&#8209;1 (%)</th>",
        f"<th class='bar'>95 % interval<span class='ends'><i>{low:.1f}</i><i>{high:.1f}</i></span></th>",
        "<th class='n'>GMAC</th><th class='n'>params (M)</th><th class='n'>clips/s</th>",
        f"<th class='n'>{unit}</th><th class='n'>CPU&nbsp;s</th><th>front</th>",
    ]
    head = f"<thead><tr>{''.join(heads)}</tr></thead>"
    shown, rest = ranking.points[:MOST_ROWS], ranking.points[MOST_ROWS:]
    yield "<section><h2>Points</h2>"
    body = functools.partial(_rows, low=low, high=high, fields=len(fields), per_hour=per_hour)
    yield f"<div class='wide'><table class='points'>{head}{body(shown)}</table></div>"
    if rest:
        yield f"<details><summary>{counted(len(rest), 'further point')}</summary>"
        yield f"<div class='wide'><table class='points'>{head}{body(rest)}</table></div></details>"
    letters = ", ".join(f"{letter} {key}" for key, letter in _LETTERS.items())
    yield (
        "<p class='soft'>Costs are means of one trial. Front, by cost: no other point is as accurate and cheaper; "
        f"{letters}.</p></section>"
    )


def _rows(points: Sequence[RankedPoint], *, low: float, high: float, fields: int, per_hour: float) -> str:
    rows, group = [], None
    for point in points:
        if point.group != group:
            group = point.group
            rows.append(f"<tr class='group'><th colspan='{fields + 10}'>{_GROUP_TITLES[group]}</th></tr>")
        values = "".join(f"<td class='v'>{esc(text_of(value))}</td>" for value in point.point.values())
        score = "" if point.score is None else f"{point.score.mean:.1f}"
        what = interval_bar(point, low, high) or esc(states_of(point.trials))
        time = None if point.hours is None else point.hours * per_hour
        numbers = (point.gmacs, point.params / 1e6, point.clips_per_s, time, point.cpu_s)
        cells = "".join(f"<td class='n'>{'' if value is None else number(value)}</td>" for value in numbers)
        rows.append(
            f"<tr><td class='n'>{point.rank or ''}</td>{values}<td class='n'>{point.seeds_text}</td>"
            f"<td class='n'><b>{score}</b></td><td class='bar'>{what}</td>{cells}"
            f"<td class='v'>{_fronts(point)}</td></tr>"
        )
    return f"<tbody>{''.join(rows)}</tbody>"


def _fronts(point: RankedPoint) -> str:
    letters = " ".join(_LETTERS[key] for key in point.fronts)
    return f"<span title='{esc(', '.join(point.fronts))}'>{letters}</span>" if letters else ""


def _costs(ranking: Ranking) -> Iterator[str]:
    if not ranking.scored:
        return
    shown = ranking.shown_costs()
    yield "<section><h2>Accuracy against cost</h2>"
    alike = [f"{name} ({value})" for name, value in _alike(ranking)]
    if alike:
        yield f"<p>The same for all points, so not drawn: {esc(', '.join(alike))}.</p>"
    if shown:
        yield f"<p class='legend'>{legend(ranking)}</p><div class='panels'>"
        yield from (f"<figure>{cost_panel(ranking, cost)}</figure>" for cost in shown)
        yield "</div>"
    yield "</section>"


def _alike(ranking: Ranking) -> Iterator[tuple[str, str]]:
    keys = {cost.key for cost in ranking.shown_costs()}
    first = ranking.scored[0]
    if "GMAC" not in keys:
        yield "GMAC of one view", number(first.gmacs)
    if "params" not in keys:
        yield "million parameters", number(first.params / 1e6)


def _effects(ranking: Ranking, importances: Mapping[str, float] | None) -> Iterator[str]:
    found = effects(ranking)
    if not found:
        return
    weights = shares(found, importances)
    yield "<section><h2>What the fields do</h2>"
    yield (
        "<p>Mean top-1 of all points that share a value, with its 95 % interval. Only trials that finished count: "
        "where a scheduler stops trials, a value that lost many shows too well, so their numbers stand beside it.</p>"
    )
    yield from (f"<p class='warn'>{esc(line)}.</p>" for line in varying_together(ranking))
    if len(weights) > 1:
        source = "as the search weighed them" if importances else "share of the points' variance that it explains"
        yield f"<h3>How much each matters: {source}</h3>"
        yield f"<div class='panels'><figure class='small'>{share_bars(weights)}</figure></div>"
    for field in dict.fromkeys(effect.field for effect in found if effect.stage is not None):
        fixed = unvaried_stages(ranking, field)
        yield from _stages([effect for effect in found if effect.field == field], fixed)
    whole = [effect for effect in found if effect.stage is None]
    if whole:
        yield f"<h3>Field by field</h3><div class='panels'>{''.join(map(_whole, whole))}</div>"
    yield "</section>"


def _stages(own: Sequence[Effect], fixed: Sequence[tuple[int, str]]) -> Iterator[str]:
    clear = [effect for effect in own if effect.beyond_noise]
    strongest = max(clear, key=lambda effect: effect.explained or 0, default=None)
    verdict = "no stage's effect is beyond the noise" if strongest is None else f"stage {strongest.stage} cares most"
    span = stage_span(own)
    yield f"<h3>{esc(own[0].name)} per stage: {verdict}</h3><div class='stages'>"
    for effect in own:
        kind = "beyond the noise" if effect.beyond_noise else "within the noise"
        yield (
            f"<figure><figcaption><b>stage {effect.stage}</b> {effect.spread:.1f} points of top-1, {kind}</figcaption>"
            f"{stage_panel(effect, span=span, strongest=effect is strongest)}</figure>"
        )
    yield "</div>"
    if fixed:
        texts = ", ".join(f"stage {stage} ({number})" for stage, number in fixed)
        yield f"<p class='soft'>The same in all points, so not drawn: {texts}.</p>"


def _whole(effect: Effect) -> str:
    kind = "beyond the noise" if effect.beyond_noise else "within the noise"
    words = f"<b>{esc(effect.name)}</b> {effect.spread:.1f} points of top-1, {kind}"
    return f"<figure class='small'><figcaption>{words}</figcaption>{effect_rows(effect)}</figure>"


def _states(trials: Sequence[Trial]) -> Iterator[str]:
    yield "<section><h2>How the trials ended</h2><table class='plain states'>"
    for state, count in state_counts(trials):
        own = [trial for trial in trials if trial.state == state]
        look = STATES[state]
        yield (
            f"<tr><th>{state_glyph(own[0])} {count} {look.words}</th><td><span class='soft'>{look.meaning}</span>"
            f"<div class='glyphs'>{trial_glyphs(own)}</div>{_reasons(own) if state != 'finished' else ''}</td></tr>"
        )
    yield "</table></section>"


def _reasons(trials: Sequence[Trial]) -> str:
    blocks = []
    for reason, own in reasons(trials):
        names = [f"{trial.title}, seed {trial.seed} (trial {trial.number}, {_epochs(trial)})" for trial in own]
        blocks.append(f"<li><b>{esc(reason)}</b>{_names(names)}</li>")
    most, rest = blocks[:MOST_NAMED], blocks[MOST_NAMED:]
    folded = f"<details><summary>{counted(len(rest), 'further reason')}</summary><ul>{''.join(rest)}</ul></details>"
    return f"<ul>{''.join(most)}</ul>{folded if rest else ''}"


def _epochs(trial: Trial) -> str:
    if never_started(trial):
        return "not started"
    return f"after {counted(trial.epochs, 'epoch')}" if trial.epochs else "before its first epoch ended"


def _names(names: Sequence[str]) -> str:
    """Names below a reason; many are folded away."""
    first, rest = names[:MOST_NAMED], names[MOST_NAMED:MOST_LISTED]
    shown = f"<div class='names'>{esc('; '.join(first))}</div>"
    if rest:
        cut = len(names) - MOST_LISTED
        more = f" … and {cut} more in sweep_result.json" if cut > 0 else ""
        shown += (
            f"<details><summary>{len(names) - len(first)} more</summary>"
            f"<div class='names'>{esc('; '.join(rest))}{more}</div></details>"
        )
    return shown


def _left_out(result: SweepResult) -> Iterator[str]:
    replaced = list(
        dict.fromkeys((title_of(trial.replaces), trial.title) for trial in result.trials if trial.replaces is not None)
    )
    if result.impossible:
        yield f"<section><h2>{counted(len(result.impossible), 'point')} left out</h2><ul>"
        for rule, points in impossible_groups(result):
            alike = len(points) > 1
            heading = f"{counted(len(points), 'point')}: {rule if alike else points[0][1]}"
            example = f"<div class='soft'>for example {esc(points[0][0])}: {esc(points[0][1])}</div>" if alike else ""
            yield f"<li><b>{esc(heading)}</b>{example}{_names([title for title, _ in points])}</li>"
        yield "</ul></section>"
    if replaced:
        names = [f"{asked} → {taken}" for asked, taken in replaced]
        yield f"<section><h2>{counted(len(replaced), 'point')} replaced</h2>"
        yield f"<p>These weren't possible or cost too much or too little; others took their place.</p>{_names(names)}"
        yield "</section>"
    if (checkpoints := checkpoints_of(result)) is not None:
        yield f"<section><p class='soft'>{esc(checkpoints)}</p></section>"


def _time(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
