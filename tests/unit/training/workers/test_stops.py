from pathlib import Path

import pytest

from morphmlp.training.workers.stops import Stop, StopReason, requested_stop, write_stop_request

EVERY_FIELD = Stop(reason=StopReason.TOO_MANY_BROKEN, detail="6 of 12 train videos", split="train", step=7)


@pytest.mark.parametrize("stop", [*(Stop(reason=reason) for reason in StopReason), EVERY_FIELD])
def test_a_request_is_read_as_it_was_made(tmp_path: Path, stop: Stop) -> None:
    write_stop_request(tmp_path / "stop-requested", stop)
    assert requested_stop(tmp_path / "stop-requested") == stop


@pytest.mark.parametrize(
    "text", ["", "maintenance", "{}", "[1]", "7", '{"reason": "tea"}', '{"reason": "pruned", "x": 1}']
)
def test_what_a_person_wrote_asks_for_a_plain_stop(tmp_path: Path, text: str) -> None:
    (tmp_path / "stop-requested").write_text(text)
    assert requested_stop(tmp_path / "stop-requested") == Stop(reason=StopReason.REQUESTED, detail=text)


def test_without_a_file_nothing_is_requested(tmp_path: Path) -> None:
    assert requested_stop(tmp_path / "stop-requested") is None
