"""A run's description in MLflow: its result as a table, on what it was measured, and how to repeat it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morphmlp.record import Tags
from morphmlp.tasks.scores import ScoreName

_UNKNOWN = "unknown"
_SHORT = 12


@dataclass(frozen=True, kw_only=True)
class TestedRun:
    """What a description tells of a test."""

    __test__ = False  # no test of pytest's

    run_id: str
    scores: Mapping[str, float]
    """By `ScoreName.key`."""
    intervals: Mapping[str, tuple[float, float]]
    """95 % intervals of those that have one."""
    num_videos: int
    """Scored."""
    num_quarantined: int
    items: str
    """`videos` or `images`."""
    views: str
    """Of each, in words."""
    tested: str
    """Which checkpoint, in words."""


def result_note(run: TestedRun, names: Sequence[ScoreName], tags: Mapping[str, str]) -> str:
    """The description, Markdown; `tags` are the run's (`morphmlp.record.Tags`)."""
    unscored = f", {run.num_quarantined} quarantined" if run.num_quarantined else ""
    facts = {
        "scored": f"{run.num_videos} test {run.items}{unscored}; {run.views}",
        "test fingerprint": f"`{tags.get(Tags.DATA_TEST, _UNKNOWN)}`",
        "tested": run.tested,
        "code": _code(tags),
        "experiment": f"`{tags.get(Tags.FINGERPRINT, _UNKNOWN)}` ({tags.get(Tags.EXPERIMENT, _UNKNOWN)})",
    }
    repeat = [
        f"mlflow artifacts download --run-id {run.run_id} --artifact-path experiment.yaml --dst-path .",
        "python pipelines/train.py --config experiment.yaml",
    ]
    began = [f"Begun by `{tags[Tags.COMMAND]}`."] if Tags.COMMAND in tags else []
    return "\n".join(
        [
            *_table(["test", "%", "95 % interval"], [_score_cells(run, name) for name in names]),
            "",
            *_table(["", ""], [[title, text] for title, text in facts.items()]),
            "",
            *began,
            "To repeat it, at the same commit:",
            "",
            "```bash",
            *repeat,
            "```",
        ]
    )


def _score_cells(run: TestedRun, name: ScoreName) -> list[str]:
    low_high = run.intervals.get(name.key)
    interval = "" if low_high is None else f"{low_high[0]:.2f} to {low_high[1]:.2f}"
    return [name.title, f"{run.scores[name.key]:.2f}", interval]


def _code(tags: Mapping[str, str]) -> str:
    commit = tags.get(Tags.GIT_COMMIT, _UNKNOWN)
    if commit == _UNKNOWN:
        return f"tree `{tags.get(Tags.CODE, _UNKNOWN)[:_SHORT]}` of the package, commit unknown"
    return f"commit `{commit[:_SHORT]}`{', with changes' if tags.get(Tags.GIT_DIRTY) == 'true' else ''}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
