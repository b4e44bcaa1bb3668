"""When a test's run is opened in the record, and what comes of a record that refuses."""

import threading

import pytest

from morphmlp.errors import EvaluationError, TrackingError
from morphmlp.experiment.late_record import LateRecord
from morphmlp.tracking import RunWriter

WRITER = RunWriter("sqlite:///none.db", "0" * 32)


class Opening:
    """Opens the run, or fails; counts how often."""

    def __init__(self, error=None):
        self.error, self.times, self.done = error, 0, threading.Event()

    def __call__(self):
        self.times += 1
        self.done.set()
        if self.error is not None:
            raise self.error
        return WRITER


def test_the_run_is_opened_once_and_only_when_it_is_asked_for():
    opening = Opening()
    record = LateRecord(opening)
    assert not opening.done.wait(0.1)
    for _ in range(3):
        record.ask()
    assert record.writer() is record.writer() is WRITER
    assert record.at_end(EvaluationError("no score")) is WRITER
    assert opening.times == 1


def test_a_refusal_ends_the_test_with_the_next_scores():
    opening = Opening(TrackingError("away"))
    record = LateRecord(opening)
    record.ask()
    assert opening.done.wait(10)
    with pytest.raises(TrackingError, match="away"):
        record.writer()  # waits for it
    with pytest.raises(TrackingError, match="away"):
        record.ask()
    assert record.at_end(TrackingError("away")) is None


@pytest.mark.parametrize(
    ("error", "opened"), [(KeyboardInterrupt(), None), (EvaluationError("no score"), WRITER), (OSError("full"), WRITER)]
)
def test_a_failure_before_the_first_scores_is_recorded_and_an_interruption_is_not(error, opened):
    opening = Opening()
    assert LateRecord(opening).at_end(error) is opened
    assert opening.times == (opened is not None)


def test_without_scores_it_is_opened_after_a_while(monkeypatch):
    monkeypatch.setattr("morphmlp.experiment.late_record.LATEST_S", 0.05)
    opening = Opening()
    record = LateRecord(opening)
    assert opening.done.wait(10)
    assert record.writer() is WRITER
