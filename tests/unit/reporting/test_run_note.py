"""A run's description in MLflow."""

from dataclasses import dataclass, field, replace

from morphmlp.record import Tags
from morphmlp.reporting.run_note import result_note
from morphmlp.tasks.scores import MEAN_CLASS, NLL, TOP1, TOP5


@dataclass(frozen=True)
class Run:
    run_id: str = "0a1b"
    scores: object = field(default_factory=lambda: {"top1": 71.25, "top5": 92.5, "nll": 1.25})
    intervals: object = field(default_factory=lambda: {"top1": (65.21, 76.6)})
    num_videos: int = 240
    num_quarantined: int = 0
    items: str = "videos"
    tested: str = "last checkpoint, step 875"


RUN, VIEWS = Run(), "4 clips x 1 crop"
TAGS = {
    Tags.DATA_TEST: "240:5cb1d44bc41c",
    Tags.GIT_COMMIT: "41f6020aaaaabbbbbcccccdddddeeeeefffff000",
    Tags.GIT_DIRTY: "false",
    Tags.CODE: "98765432100123456789",
    Tags.FINGERPRINT: "0123456789ab",
    Tags.EXPERIMENT: "k400-s",
    Tags.COMMAND: "python pipelines/train_k400.py --train.seed 1",
}


def test_a_description_has_scores_with_intervals_what_was_scored_and_the_command_that_repeats_it():
    note = result_note(RUN, (TOP1, TOP5, MEAN_CLASS, NLL), TAGS, views=VIEWS)
    for line in (
        "| top-1 | 71.25 % | 65.21 to 76.60 |",
        "| top-5 | 92.50 % |  |",
        "| NLL | 1.25 nats |  |",
        "| scored | 240 test videos; 4 clips x 1 crop |",
        "| test fingerprint | `240:5cb1d44bc41c` |",
        "| tested | last checkpoint, step 875 |",
        "| code | commit `41f6020aaaaa` |",
        "| experiment | `0123456789ab` (k400-s) |",
        "Begun by `python pipelines/train_k400.py --train.seed 1`.",
        "mlflow artifacts download --run-id 0a1b --artifact-path experiment.yaml --dst-path .",
        "python pipelines/train.py --config experiment.yaml",
    ):
        assert line in note.splitlines()


def test_a_description_says_what_is_missing_changed_or_unknown():
    broken = replace(RUN, num_videos=238, num_quarantined=2)
    assert "238 test videos, 2 quarantined; 4 clips" in result_note(broken, (TOP1,), TAGS, views=VIEWS)
    assert "`41f6020aaaaa`, with changes |" in result_note(RUN, (TOP1,), TAGS | {Tags.GIT_DIRTY: "true"}, views=VIEWS)
    assert "tree `987654321001` of the package" in result_note(
        RUN, (TOP1,), TAGS | {Tags.GIT_COMMIT: "unknown"}, views=VIEWS
    )
    assert "| tested | a / b |" in result_note(replace(RUN, tested="a | b"), (TOP1,), {}, views=VIEWS)
