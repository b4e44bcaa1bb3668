"""What a trial writes is what its driver shows."""

from morphmlp.tuning.run.trial_log import TrialLog, TrialView, show_all
from morphmlp.tuning.run.trials import TrialEnd


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
    show_all([view], screen)
    log.line("epoch 1")
    log.validation(1, 50.0)
    log.ended(TrialEnd(state="finished", score=12.5, scores={"top1": 12.5}, wall_s=3.0))
    show_all([view], screen)
    assert screen.notes == [(0, "t1: training 3/20 steps, loss 2.1"), (1, "")]
    assert screen.lines == ["t1: epoch 1"]
    assert view.end == TrialEnd(state="finished", score=12.5, scores={"top1": 12.5}, wall_s=3.0)
    assert view.validations == {1: 50.0}


def test_a_half_written_line_waits_for_its_end(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"event": "li')
    view, screen = TrialView(name="t1", path=path), Screen()
    view.show(screen)
    path.write_text('{"event": "line", "text": "x"}\n')
    view.show(screen)
    assert screen.lines == ["t1: x"]


def test_updates_are_written_once_a_second_at_most_but_the_last_always(tmp_path):
    log = TrialLog(tmp_path / "t.jsonl")
    log.phase("test", total=100, unit="videos")
    for done in range(1, 101):
        log.update(done)
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) < 10
    assert '"done": 100' in (tmp_path / "t.jsonl").read_text()


def test_an_early_end_carries_its_reason(tmp_path):
    log, view, screen = TrialLog(tmp_path / "t.jsonl"), TrialView(name="t1", path=tmp_path / "t.jsonl"), Screen()
    log.ended(TrialEnd(state="timed_out", error="too slow"))
    show_all([view], screen)
    assert (view.end.error, screen.lines) == ("too slow", ["t1: timed out: too slow"])


def test_a_trial_that_is_tried_again_has_not_ended(tmp_path):
    log, view = TrialLog(tmp_path / "t.jsonl"), TrialView(name="t1", path=tmp_path / "t.jsonl")
    log.ended(TrialEnd(state="failed", error="no disk"))
    log.again()
    view.read_silently()
    assert view.end is None


def test_a_line_that_a_killed_process_left_unfinished_is_cut_off_by_the_next(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"event": "line", "text": "complete"}\n{"event": "li')
    TrialLog(path).line("next")
    view, screen = TrialView(name="t1", path=path), Screen()
    view.show(screen)
    assert screen.lines == ["t1: complete", "t1: next"]


def test_lines_that_another_thread_read_are_shown_later_and_once(tmp_path):
    log, view, screen = TrialLog(tmp_path / "t.jsonl"), TrialView(name="t1", path=tmp_path / "t.jsonl"), Screen()
    log.line("top-1 90.0")
    log.ended(TrialEnd(state="finished"))
    view.read()
    assert view.end is not None
    show_all([view], screen)
    show_all([view], screen)
    assert screen.lines == ["t1: top-1 90.0"]
