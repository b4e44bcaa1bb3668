"""What a trial writes is what its driver shows."""

from morphmlp.errors import ClusterError, ConfigError
from morphmlp.tuning.trial_log import TrialLog, TrialView, follow_all, reason_of


class Screen:
    def __init__(self):
        self.lines, self.notes = [], []

    def phase(self, title, *, total, unit):
        raise AssertionError("a trial begins no phase of the sweep")

    def update(self, done, note=""):
        self.notes.append((done, note))

    def line(self, text):
        self.lines.append(text)


def test_the_driver_sees_a_trial_begin_move_and_finish(tmp_path):
    log, view, screen = (
        TrialLog(tmp_path / "a" / "t.jsonl"),
        TrialView(name="t1", path=tmp_path / "a" / "t.jsonl"),
        Screen(),
    )
    log.phase("training", total=20, unit="steps")
    log.update(3, "loss 2.1")
    follow_all([view], screen)
    log.line("epoch 1")
    log.finished({"top1": 12.5})
    follow_all([view], screen)
    assert screen.notes == [(0, "t1: training 3/20 steps, loss 2.1"), (1, "")]
    assert screen.lines == ["t1: epoch 1"]
    assert view.result == {"top1": 12.5}


def test_a_half_written_line_waits_for_its_end(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"event": "li')
    view, screen = TrialView(name="t1", path=path), Screen()
    view.follow(screen)
    path.write_text('{"event": "line", "text": "x"}\n')
    view.follow(screen)
    assert screen.lines == ["t1: x"]


def test_updates_are_told_once_a_second_at_most_but_the_last_always(tmp_path):
    log = TrialLog(tmp_path / "t.jsonl")
    log.phase("test", total=100, unit="videos")
    for done in range(1, 101):
        log.update(done)
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) < 10
    assert '"done": 100' in (tmp_path / "t.jsonl").read_text()


def test_a_failure_carries_its_reason(tmp_path):
    log, view, screen = TrialLog(tmp_path / "t.jsonl"), TrialView(name="t1", path=tmp_path / "t.jsonl"), Screen()
    log.failed(ClusterError("no room"))
    follow_all([view], screen)
    assert (view.reason, screen.lines) == ("no room", ["t1: failed: no room"])


def test_own_errors_speak_for_themselves_and_others_are_led_by_their_type():
    assert reason_of(ConfigError(["a: x", "b: y"])) == "a: x; b: y"
    assert reason_of(ValueError("bad\nworse")) == "ValueError: worse"
    assert reason_of(KeyboardInterrupt()) == "KeyboardInterrupt"
