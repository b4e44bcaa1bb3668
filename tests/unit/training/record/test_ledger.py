"""The ledger: no order of kills and resumes that keeps to the protocol loses or repeats a video; what does is found."""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
import tiny_training as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.plan import Cursor, TrainPlan
from morphmlp.drill.outcome import Consumption, consumption
from morphmlp.training.record.ledger import Ledger, RecordedClips, read_history

TOTAL = 8
PLAN = TrainPlan(num_videos=23, global_batch_size=6, micro_batch_size=2, seed=3)
IDS = [f"v{row}" for row in range(PLAN.num_videos)]
NOTHING_WRONG = Consumption(repeated=0, lost=0, out_of_place=0, broken=0)


def rows_of(plan, step, *, worker, workers):
    """A worker's rows of a step, a list for each micro-batch."""
    epoch, place = divmod(step, plan.steps_per_epoch)
    own = plan.micro_batches(Cursor(epoch=epoch, step=place), worker=worker, num_workers=workers)
    return [batch.rows.tolist() for batch in itertools.takewhile(lambda batch: batch.step == place, own)]


def write_attempt(folder, number, *, first, last, workers=2, behind=0, broken=(), change=lambda step, rows: rows):
    """The files of workers that begin at step `first` and take the steps before `last`; the last worker `behind` fewer.

    `change` alters the micro-batches of a worker's step, which makes the attempt wrong.
    """
    for worker in range(workers):
        lines = [{"first_step": first, "worker": worker, "num_workers": workers}]
        for step in range(first, last - behind if worker == workers - 1 else last):
            micro_batches = change(step, rows_of(PLAN, step, worker=worker, workers=workers))
            names = [IDS[row] for rows in micro_batches for row in rows]
            lines.append(
                {
                    "step": step,
                    "epoch": step // PLAN.steps_per_epoch,
                    "videos": [name for name in names if name not in broken],
                    "broken": [name for name in names if name in broken],
                }
            )
        path = folder / f"{1000 + number}-{number:08x}-worker{worker}-of-{workers}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@st.composite
def runs(draw):
    """Attempts until all steps are taken: each begins at 0 or at a checkpoint, with its own number of workers."""
    attempts, saved = [], [0]
    while not attempts or attempts[-1]["last"] < TOTAL or attempts[-1]["behind"]:
        first = draw(st.sampled_from(saved))
        last = draw(st.integers(first, TOTAL)) if len(attempts) < 6 else TOTAL
        # The last step may have reached only some of the workers: then nobody's weights hold it.
        behind = draw(st.integers(0, min(1, last - first))) if len(attempts) < 6 else 0
        attempts.append({"first": first, "last": last, "behind": behind, "workers": draw(st.integers(1, 3))})
        taken = last - behind
        saved = [step for step in saved if step <= taken] + draw(st.lists(st.integers(first, taken), max_size=2))
    return attempts


@settings(max_examples=50)
@given(attempts=runs(), broken=st.sets(st.sampled_from(IDS), max_size=3))
def test_no_sequence_of_kills_and_resumes_loses_or_repeats_a_video(attempts, broken):
    with tempfile.TemporaryDirectory() as folder:
        for number, attempt in enumerate(attempts):
            write_attempt(Path(folder), number, **attempt, broken=broken)
        history = read_history(Path(folder))
    found = consumption(history, PLAN, IDS, total_steps=TOTAL)
    assert (found.repeated, found.lost, found.out_of_place) == (0, 0, 0)
    planned = [
        {IDS[row] for step in steps for rows in rows_of(PLAN, step, worker=0, workers=1) for row in rows}
        for steps in (range(3), range(3, 6), range(6, TOTAL))
    ]
    assert found.broken == sum(len(names & broken) for names in planned)
    began = [
        range(attempt["first"], attempt["last"] - (attempt["behind"] if attempt["workers"] == 1 else 0))
        for attempt in attempts
    ]
    assert history.redone_steps == sum(map(len, began)) - TOTAL


def consumption_of(tmp_path, *, total_steps=TOTAL):
    return consumption(read_history(tmp_path), PLAN, IDS, total_steps=total_steps)


@pytest.mark.parametrize("step", [0, 4, TOTAL - 1])
def test_a_dropped_micro_batch_is_found(tmp_path, step):
    write_attempt(tmp_path, 0, first=0, last=TOTAL, change=lambda at, rows: rows[1:] if at == step else rows)
    dropped = sum(len(rows_of(PLAN, step, worker=worker, workers=2)[0]) for worker in range(2))
    assert consumption_of(tmp_path) == Consumption(repeated=0, lost=dropped, out_of_place=0, broken=0)


def test_a_doubled_micro_batch_is_found(tmp_path):
    write_attempt(tmp_path, 0, first=0, last=TOTAL, workers=1, change=lambda at, rows: rows + rows[: at == 2])
    assert consumption_of(tmp_path) == Consumption(repeated=2, lost=0, out_of_place=0, broken=0)


def test_the_videos_of_an_earlier_step_in_the_same_epoch_are_found(tmp_path):
    earlier = rows_of(PLAN, 3, worker=0, workers=1)
    write_attempt(tmp_path, 0, first=0, last=TOTAL, workers=1, change=lambda at, rows: earlier if at == 4 else rows)
    assert consumption_of(tmp_path) == Consumption(repeated=6, lost=6, out_of_place=6, broken=0)


def test_a_restart_that_skips_a_step_is_found(tmp_path):
    write_attempt(tmp_path, 0, first=0, last=4)
    write_attempt(tmp_path, 1, first=5, last=TOTAL)
    assert consumption_of(tmp_path) == Consumption(repeated=0, lost=6, out_of_place=0, broken=0)


def test_steps_beyond_the_end_are_out_of_place(tmp_path):
    write_attempt(tmp_path, 0, first=0, last=TOTAL)
    assert consumption_of(tmp_path, total_steps=TOTAL - 1) == Consumption(repeated=0, lost=0, out_of_place=6, broken=0)


def test_a_line_that_was_cut_off_is_no_step(tmp_path):
    write_attempt(tmp_path, 0, first=0, last=4)
    path = next(tmp_path.glob("*worker1*"))
    path.write_text(path.read_text()[:-9])
    write_attempt(tmp_path, 1, first=3, last=TOTAL)
    assert consumption_of(tmp_path) == NOTHING_WRONG
    assert read_history(tmp_path).redone_steps == 1


def test_no_ledger_is_an_empty_history(tmp_path):
    assert read_history(tmp_path / "ledger").attempts == ()
    assert consumption_of(tmp_path / "ledger", total_steps=3).lost == 18


def test_what_a_worker_takes_is_written_before_it_trains_on_it(tmp_path):
    plan = TrainPlan(num_videos=12, global_batch_size=6, micro_batch_size=2, seed=0)
    names = [f"v{row}" for row in range(plan.num_videos)]
    videos = Manifest(pa.table({"video_id": names}), ())
    ledger = Ledger(tmp_path, worker=0, num_workers=1, first_step=1)
    clips = RecordedClips(tiny.ListClips(plan, broken=(4,)), ledger, plan=plan, videos=videos)
    for number, micro_batches in enumerate(clips.train(Cursor(epoch=0, step=1)), start=1):
        taken = read_history(tmp_path).steps
        assert sorted(taken) == list(range(1, number + 1))
        assert list(taken[number].videos) == [names[row] for batch in micro_batches for row in batch.rows]
    for _ in zip(range(1), clips.train(Cursor(epoch=1, step=0)), strict=False):
        pass  # the rest of the epoch is never asked for
    ledger.close()
    history = read_history(tmp_path)
    assert sorted(history.steps) == [1, 2]
    assert [(attempt.first_step, attempt.num_workers) for attempt in history.attempts] == [(1, 1)]
    found = consumption(history, plan, names, total_steps=3)
    assert (found.repeated, found.lost, found.out_of_place) == (0, 6, 0)  # step 0 is of a time before this ledger


TWO_WORKERS = """
import sys
from pathlib import Path

import torch.distributed as dist

from morphmlp.training.record.ledger import Ledger

folder, worker = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=worker, world_size=2)
for first_step in (0, 1):
    ledger = Ledger(Path(folder) / "ledger", worker=worker, num_workers=2, first_step=first_step)
    ledger.add(step=first_step, epoch=0, videos=[f"v{worker}"], broken=[])
dist.destroy_process_group()
"""


def test_workers_that_start_together_are_one_attempt(tmp_path):
    command = [sys.executable, "-c", TWO_WORKERS, str(tmp_path)]
    workers = [subprocess.Popen([*command, str(worker)]) for worker in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    attempts = read_history(tmp_path / "ledger").attempts
    assert [(attempt.first_step, attempt.num_workers) for attempt in attempts] == [(0, 2), (1, 2)]
    assert [sorted(attempt.steps[number].videos) for number, attempt in enumerate(attempts)] == [["v0", "v1"]] * 2
