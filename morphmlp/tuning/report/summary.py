"""A sweep's result in words and numbers, the same on its page, in its picture, in its table and in the terminal."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from morphmlp.tuning.report.ranking import Group, RankedPoint, Ranking, ranked
from morphmlp.tuning.run.trials import SweepResult, Trial, TrialState
from morphmlp.tuning.space.space import counted, short_names, text_of

MOST_NAMED = 4
"""Trials that the table names for a reason."""
GROUP_TITLES: Mapping[Group, str] = {
    "best": "best",
    "indistinguishable": "indistinguishable from the best",
    "behind": "behind the best, beyond the noise",
    "partly finished": "not all seeds finished, so not compared",
    "without result": "no seed finished",
}
PRINTED = "the paper's top-1"
PRINTED_NOTE = (
    "as arXiv 2111.12527v1 prints it for the same values, of another training: network and data set stand with it. It "
    "takes no part in the ranking"
)
_NUMBER = re.compile(r"(?<!stage )\b\d[\d.e+-]*\b")


@dataclass(frozen=True, kw_only=True)
class StateLook:
    """How a state is shown: a mark, always with its words next to it."""

    words: str
    mark: str
    meaning: str


STATES: Mapping[TrialState, StateLook] = {
    "finished": StateLook(words="finished", mark="●", meaning="trained and tested"),
    "stopped": StateLook(words="stopped", mark="■", meaning="by the scheduler, behind others"),
    "timed_out": StateLook(words="timed out", mark="◆", meaning="longer than max_trial_minutes"),
    "diverged": StateLook(words="diverged", mark="▲", meaning="its loss or gradients were not finite"),
    "failed": StateLook(words="failed", mark="✖", meaning="an error"),
}


def answer(ranking: Ranking) -> str:
    """One sentence: the best point, and whether it can be distinguished from others."""
    best = ranking.best
    if best is None or best.score is None:
        number_of_trials = sum(len(point.trials) for point in ranking.points)
        return f"No answer: none of the {counted(number_of_trials, 'trial')} was trained and tested to its end."
    sentence = f"Best: {best.title}, {ranking.primary.title} {best.score}"
    if not best.is_complete:
        sentence += f"; only {best.seeds_text} seeds finished, and no other point has more"
    close, behind = ranking.of("indistinguishable"), ranking.of("behind")
    if close:
        others = f"; {counted(len(close), 'other point')} can't be distinguished from it"
    elif behind:
        others = f"; it is ahead of {'the other' if len(behind) == 1 else f'all {len(behind)} others'} beyond the noise"
    else:
        others = "; there is no other point to compare it with"
    partly = ranking.of("partly finished")
    verb = "is" if len(partly) == 1 else "are"
    aside = f" {counted(len(partly), 'point')} of which not all seeds finished {verb} not compared." if partly else ""
    return f"{sentence}{others}.{aside}"


def trial_table(result: SweepResult) -> str:
    """One row per point, best first, as Markdown; beneath it what `=` means, and why trials ended early."""
    if not result.trials:
        return "no trials\n"
    ranking = ranked(result)
    unit, per_hour = ranking.time_unit
    fields = field_titles(ranking)
    printed = [PRINTED] if ranking.has_printed else []
    score = f"{result.primary.title} (95 %)"
    table = tabulate(
        [[*_row(point, per_hour), *([point.printed or ""] if printed else [])] for point in ranking.points],
        headers=["rank", *fields, "seeds", score, "GMAC", "params (M)", "clips/s", unit, "states", *printed],
        tablefmt="pipe",
        colalign=["right", *["left"] * len(fields), *["right"] * 6, "left", *["left"] * len(printed)],
        disable_numparse=True,
    )
    close = ["", "= can't be distinguished from the best"] if ranking.of("indistinguishable") else []
    note = ["", f"{PRINTED}: {PRINTED_NOTE}"] if printed else []
    return "\n".join([table, *close, *note, *_why(result.trials)]) + "\n"


def field_titles(ranking: Ranking) -> list[str]:
    """The swept fields' short names in words, `chunk lengths`."""
    fields = list(ranking.points[0].point) if ranking.points else []
    return [name.replace("_", " ") for name in short_names(fields)]


def number(value: float) -> str:
    """A number with three significant digits, from 1000 on with all of its whole digits."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def costs_text(point: RankedPoint, *, per_hour: float) -> list[str]:
    """GMAC, million parameters, clips/s, time of a trial, and CPU-seconds; empty where they aren't known."""
    time = None if point.hours is None else point.hours * per_hour
    costs = (point.gmacs, point.params / 1e6, point.clips_per_s, time, point.cpu_s)
    return ["" if cost is None else number(cost) for cost in costs]


def checkpoints_summary(result: SweepResult) -> str | None:
    """What is left of the trials' checkpoints; None where all were to stay."""
    if result.with_checkpoints is None:
        return None
    kept = counted(len(result.with_checkpoints), "trial")
    freed = f"{result.freed_bytes / 1e6:,.1f} MB"
    return f"Checkpoints are kept of {kept}: winners, and those that came to no end; {freed} of others were freed."


def states_text(trials: Sequence[Trial]) -> str:
    """`finished 1, stopped 2 (after 2 epochs, 1 not started)`."""
    parts = []
    for state, count in state_counts(trials):
        own = [trial for trial in trials if trial.state == state]
        when = f" ({_when(own)})" if state in ("stopped", "timed_out") else ""
        parts.append(f"{STATES[state].words}{'' if len(trials) == 1 else f' {count}'}{when}")
    return ", ".join(parts)


def state_counts(trials: Sequence[Trial]) -> list[tuple[TrialState, int]]:
    """How many trials ended in each state, for those states that occur."""
    counts = Counter(trial.state for trial in trials)
    return [(state, counts[state]) for state in STATES if counts[state]]


def length_text(trial: Trial) -> str:
    """How far a trial came, `after 2 epochs`."""
    if _never_started(trial):
        return "not started"
    if trial.steps is not None:
        return f"after {counted(trial.steps, 'step')}" if trial.steps else "before its first validation"
    return f"after {counted(trial.epochs, 'epoch')}" if trial.epochs else "before its first epoch ended"


def reasons(trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """Trials by why they ended early, the most frequent reason first."""
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        grouped.setdefault(trial.error or "no reason is known", []).append(trial)
    return sorted(grouped.items(), key=lambda pair: -len(pair[1]))


def impossible_groups(result: SweepResult) -> list[tuple[str, list[tuple[str, str]]]]:
    """Broken rules with their numbers left out, each with its points' titles and reasons; the most frequent first."""
    grouped: dict[str, list[tuple[str, str]]] = {}
    for point in result.impossible:
        for reason in point.reasons:
            grouped.setdefault(_NUMBER.sub("…", reason), []).append((point.title, reason))
    return sorted(grouped.items(), key=lambda pair: -len(pair[1]))


def _row(point: RankedPoint, per_hour: float) -> list[str]:
    score = point.score
    mark = " =" if point.group == "indistinguishable" else ""
    return [
        f"{point.rank or ''}{mark}",
        *(_cell(text_of(value)) for value in point.point.values()),
        f"{len(point.finished)}/{len(point.trials)}",
        "" if score is None else f"{score.mean:.1f} ({score.low:.1f}-{score.high:.1f})",
        *costs_text(point, per_hour=per_hour)[:4],
        _cell(states_text(point.trials)),
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
    """Text that ends neither its cell nor its line."""
    return text.replace("|", "\\|").replace("\n", " ")


def _never_started(trial: Trial) -> bool:
    """Whether a scheduler gave it up before it began."""
    return trial.state == "stopped" and trial.wall_s == 0


def _when(trials: Sequence[Trial]) -> str:
    """`after 1/2 epochs, 1 not started`."""
    in_steps = any(trial.steps is not None for trial in trials)
    ends = sorted(
        {trial.epochs if trial.steps is None else trial.steps for trial in trials if not _never_started(trial)}
    )
    idle = sum(map(_never_started, trials))
    unit = ("step" if in_steps else "epoch") + ("" if ends == [1] else "s")
    parts = [f"after {'/'.join(map(str, ends))} {unit}"] if ends else []
    return ", ".join([*parts, *([f"{idle} not started"] if idle else [])])
