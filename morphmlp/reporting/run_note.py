"""A run's description in MLflow: its result as a table, on what it was measured, and how to repeat it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from morphmlp.record import Tags
from morphmlp.tasks.scores import ScoreName

_UNKNOWN = "unknown"
_SHORT = 12


class Tested(Protocol):
    """What a description tells of a test."""

    @property
    def run_id(self) -> str:
        """MLflow's."""

    @property
    def scores(self) -> Mapping[str, float]:
        """By `ScoreName.key`."""

    @property
    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """95 % intervals of those that have one."""

    @property
    def num_videos(self) -> int:
        """Videos or images scored."""

    @property
    def num_quarantined(self) -> int:
        """Those that couldn't be scored."""

    @property
    def items(self) -> str:
        """`videos` or `images`."""

    @property
    def tested(self) -> str:
        """Which checkpoint, in words."""


def result_note(
    run: Tested,
    names: Sequence[ScoreName],
    tags: Mapping[str, str],
    *,
    views: str,
    again: str = "python pipelines/train.py --config experiment.yaml",
) -> str:
    """The description, Markdown.

    `tags` are the run's (`morphmlp.record.Tags`), `views` those of a video, in words, and `again` is the command that
    repeats it with its experiment file.
    """
    unscored = f", {run.num_quarantined} quarantined" if run.num_quarantined else ""
    facts = {
        "scored": f"{run.num_videos} test {run.items}{unscored}; {views}",
        "test fingerprint": f"`{tags.get(Tags.DATA_TEST, _UNKNOWN)}`",
        "tested": run.tested,
        "code": _code(tags),
        "experiment": f"`{tags.get(Tags.FINGERPRINT, _UNKNOWN)}` ({tags.get(Tags.EXPERIMENT, _UNKNOWN)})",
    }
    scores = [_score_cells(run, name) for name in names if name.key in run.scores]
    began = [f"Begun by `{tags[Tags.COMMAND]}`."] if Tags.COMMAND in tags else []
    return "\n".join(
        [
            *_table(["test", "", "95 % interval"], scores),
            "",
            *_table(["", ""], [[title, text] for title, text in facts.items()]),
            "",
            *began,
            "To repeat it, at the same commit:",
            "",
            "```bash",
            f"mlflow artifacts download --run-id {run.run_id} --artifact-path experiment.yaml --dst-path .",
            again,
            "```",
        ]
    )


def _score_cells(run: Tested, name: ScoreName) -> list[str]:
    low_high = run.intervals.get(name.key)
    interval = "" if low_high is None else f"{low_high[0]:.2f} to {low_high[1]:.2f}"
    return [name.title, f"{run.scores[name.key]:.2f} {name.unit}", interval]


def _code(tags: Mapping[str, str]) -> str:
    commit = tags.get(Tags.GIT_COMMIT, _UNKNOWN)
    if commit == _UNKNOWN:
        return f"tree `{tags.get(Tags.CODE, _UNKNOWN)[:_SHORT]}` of the package, commit unknown"
    return f"commit `{commit[:_SHORT]}`{', with changes' if tags.get(Tags.GIT_DIRTY) == 'true' else ''}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
