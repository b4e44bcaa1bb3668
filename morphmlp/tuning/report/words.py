"""A sweep's answer in words, the same on its page, in its picture and in the terminal."""

import re
from collections import Counter
from collections.abc import Sequence

from morphmlp.tuning.report.ranking import RankedPoint, Ranking
from morphmlp.tuning.report.svg import STATES
from morphmlp.tuning.run.trials import SweepResult, Trial, TrialState

_NUMBER = re.compile(r"(?<!stage )\b\d[\d.e+-]*\b")


def answer(ranking: Ranking) -> str:
    """One sentence: the best point, and whether it can be told apart from others."""
    best = ranking.best
    if best is None or best.score is None:
        number = sum(len(point.trials) for point in ranking.points)
        return f"No answer: none of the {counted(number, 'trial')} was trained and tested to its end."
    sentence = f"Best: {best.title}, {best.score}"
    if not best.is_complete:
        sentence += f"; only {best.seeds_text} seeds finished, as of no other point did more"
    close, behind = ranking.of("not separable"), ranking.of("behind")
    if close:
        others = f"; {counted(len(close), 'other point')} can't be told apart from it"
    elif behind:
        others = f"; it is above {'the other' if len(behind) == 1 else f'all {len(behind)} others'} beyond the noise"
    else:
        others = "; there is no other point to compare it with"
    partly = ranking.of("partly finished")
    aside = (
        f" {counted(len(partly), 'point')} of which not all seeds finished {_is(partly)} not compared."
        if partly
        else ""
    )
    return f"{sentence}{others}.{aside}"


def counted(number: int, word: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def checkpoints_of(result: SweepResult) -> str | None:
    """What is left of the trials' checkpoints; None where all were to stay."""
    if result.with_checkpoints is None:
        return None
    kept = counted(len(result.with_checkpoints), "trial")
    freed = f"{result.freed_bytes / 1e6:,.1f} MB"
    return f"Checkpoints are kept of {kept}: winners, and those that came to no end; {freed} of others were freed."


def states_of(trials: Sequence[Trial]) -> str:
    """`finished 1, stopped 2 (after 2 epochs, 1 not started)`."""
    parts = []
    for state in STATES:
        own = [trial for trial in trials if trial.state == state]
        if not own:
            continue
        when = f" ({_when(own)})" if state in ("stopped", "timed_out") else ""
        parts.append(f"{STATES[state].words}{'' if len(trials) == 1 else f' {len(own)}'}{when}")
    return ", ".join(parts)


def never_started(trial: Trial) -> bool:
    """Whether a scheduler gave it up before it began."""
    return trial.state == "stopped" and trial.wall_s == 0


def _when(trials: Sequence[Trial]) -> str:
    """`after 1/2 epochs, 1 not started`."""
    epochs = sorted({trial.epochs for trial in trials if not never_started(trial)})
    idle = sum(map(never_started, trials))
    unit = "epoch" if epochs == [1] else "epochs"
    parts = [f"after {'/'.join(map(str, epochs))} {unit}"] if epochs else []
    return ", ".join([*parts, *([f"{idle} not started"] if idle else [])])


def state_counts(trials: Sequence[Trial]) -> list[tuple[TrialState, int]]:
    """How many trials ended in each state, those that occur."""
    counts = Counter(trial.state for trial in trials)
    return [(state, counts[state]) for state in STATES if counts[state]]


def reasons(trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """Trials by why they ended early, the most frequent reason first."""
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        grouped.setdefault(trial.error or "no reason is known", []).append(trial)
    return sorted(grouped.items(), key=lambda pair: -len(pair[1]))


def impossible_groups(result: SweepResult) -> list[tuple[str, list[tuple[str, str]]]]:
    """Broken rules, numbers aside, each with its points' titles and reasons; the most frequent first."""
    grouped: dict[str, list[tuple[str, str]]] = {}
    for point in result.impossible:
        for reason in point.reasons:
            grouped.setdefault(_NUMBER.sub("…", reason), []).append((point.title, reason))
    return sorted(grouped.items(), key=lambda pair: -len(pair[1]))


def _is(points: Sequence[RankedPoint]) -> str:
    return "is" if len(points) == 1 else "are"
