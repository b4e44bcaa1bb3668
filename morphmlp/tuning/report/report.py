"""What a sweep shows: its table in the terminal, its page and its picture. Pure functions of trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from morphmlp.tuning.report.page import page
from morphmlp.tuning.report.picture import picture
from morphmlp.tuning.report.ranking import RankedPoint, ranked, ranked_trials
from morphmlp.tuning.report.svg import STATES, number
from morphmlp.tuning.report.words import counted, reasons, states_of
from morphmlp.tuning.run.trials import SweepResult, Trial
from morphmlp.tuning.space.space import short_names, text_of

PAGE_FILE, PICTURE_FILE = "sweep_report.html", "sweep_report.png"
COLUMNS = ("seeds", "top-1 (95 %)", "GMAC", "params (M)", "clips/s")
MOST_NAMED = 4


def write_report(
    result: SweepResult,
    folder: Path,
    *,
    title: str,
    importances: Mapping[str, float] | None = None,
    note: str | None = None,
) -> tuple[Path, ...]:
    """Write the page and the picture; both say the same.

    Args:
        result: The sweep.
        folder: Where they go; it exists.
        title: Their heading.
        importances: By dotted field, where the search weighed them.
        note: A line about what was asked.
    """
    ranking = ranked(result)
    written = folder / PAGE_FILE, folder / PICTURE_FILE
    written[0].write_text(page(result, ranking, title=title, importances=importances, note=note), encoding="utf-8")
    picture(ranking, title=title).savefig(written[1])
    return written


def trial_table(trials: Sequence[Trial]) -> str:
    """One row per point, best first, as Markdown; beneath it what `=` means, and why trials ended early."""
    if not trials:
        return "no trials\n"
    ranking = ranked_trials(trials)
    fields = [name.replace("_", " ") for name in short_names(list(trials[0].point))]
    unit, per_hour = ranking.time_unit
    aligned = ["right", *["left"] * len(fields), "right", "right", *["right"] * 4, "left"]
    table = tabulate(
        [_row(point, per_hour) for point in ranking.points],
        headers=["rank", *fields, *COLUMNS, unit, "states"],
        tablefmt="pipe",
        colalign=aligned,
        disable_numparse=True,
    )
    close = ["", "= can't be told apart from the best"] if ranking.of("not separable") else []
    lines = [table, *close, *_why(trials)]
    return "\n".join(lines) + "\n"


def _row(point: RankedPoint, per_hour: float) -> list[str]:
    score = point.score
    mark = " =" if point.group == "not separable" else ""
    time = None if point.hours is None else point.hours * per_hour
    costs = (point.gmacs, point.params / 1e6, point.clips_per_s, time)
    return [
        f"{point.rank or ''}{mark}",
        *(_cell(text_of(value)) for value in point.point.values()),
        f"{len(point.finished)}/{len(point.trials)}",
        "" if score is None else f"{score.mean:.1f} ({score.low:.1f}-{score.high:.1f})",
        *("" if value is None else number(value) for value in costs),
        _cell(states_of(point.trials)),
    ]


def _why(trials: Sequence[Trial]) -> list[str]:
    """Lines for trials that failed, diverged or ran out of time; being behind others is no fault."""
    lines = []
    for state in ("timed_out", "diverged", "failed"):
        for reason, own in reasons([trial for trial in trials if trial.state == state]):
            names = ", ".join(f"{trial.title} seed {trial.seed}" for trial in own[:MOST_NAMED])
            more = f" and {len(own) - MOST_NAMED} more" if len(own) > MOST_NAMED else ""
            lines.append(f"- {STATES[state].words}, {counted(len(own), 'trial')}: {reason} ({names}{more})")
    return ["", *lines] if lines else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
