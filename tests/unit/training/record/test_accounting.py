"""What a run used, what held it up, and the arithmetic of the verdict."""

import json
import os
import time
from dataclasses import replace

import pytest

from morphmlp.record import Metrics
from morphmlp.training.record.accounting import (
    RunFacts,
    TimeWindow,
    account_table,
    epoch_points,
    node_busy_s,
    read_windows,
    run_account,
    training_cpu_s,
    without_repeats,
)
from morphmlp.training.record.run_folder import RunFolder

FACTS = RunFacts(
    device="cuda", gmacs_per_view=10.0, cpus_per_worker=2, ingest_cpus=4, gpu_hour_price=None, cpu_hour_price=None
)


def window(
    *,
    step=10,
    steps=10,
    epoch=1,
    workers=2,
    start_s=0.0,
    wait_s=0.0,
    compute_s=0.0,
    all_reduce_s=0.0,
    other_s=0.0,
    cpu_s=0.0,
    clips=100.0,
):
    return TimeWindow(
        epoch=epoch,
        step=step,
        steps=steps,
        workers=workers,
        clips=clips,
        wall_s=start_s + wait_s + compute_s + all_reduce_s + other_s,
        start_s=start_s,
        wait_s=wait_s,
        compute_s=compute_s,
        all_reduce_s=all_reduce_s,
        decode_cpu_s=cpu_s,
    )


def verdict_of(*windows, facts=FACTS):
    return run_account(windows, facts).verdict()


def points_of(account):
    return {point.key: point.value for point in account.points()}


def test_hours_add_up_over_groups_of_different_size():
    """Two workers for an hour, then one for half of one."""
    account = run_account([window(compute_s=3600.0), window(workers=1, compute_s=1800.0)], FACTS)
    assert account.gpu_hours == account.worker_hours == 2.5
    assert account.cpu_hours == 2.5 * 2 + 1.5 * 4
    assert account.workers == pytest.approx(5 / 3)


def test_a_run_on_processors_has_no_gpu_hours():
    account = run_account([window(compute_s=3600.0)], replace(FACTS, device="cpu"))
    assert (account.gpu_hours, account.worker_hours) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("device", "gpu_price", "cpu_price", "cost"),
    [
        ("cuda", 3.0, 0.5, 2 * 3.0 + 8 * 0.5),
        ("cuda", 3.0, None, 6.0),
        ("cuda", None, 0.5, 4.0),
        ("cuda", None, None, None),
        ("cuda", 0.0, None, 0.0),
        ("cpu", 3.0, None, None),
        ("cpu", 3.0, 0.5, 4.0),
    ],
)
def test_the_cost_is_that_of_what_has_a_price(device, gpu_price, cpu_price, cost):
    facts = replace(FACTS, device=device, gpu_hour_price=gpu_price, cpu_hour_price=cpu_price)
    account = run_account([window(compute_s=3600.0)], facts)
    assert account.cost == cost
    assert points_of(account).get(Metrics.RUN_COST) == cost
    assert ("cost" in account_table(account)) == (cost is not None)


def test_rates_leave_the_start_out_and_shares_do_not():
    account = run_account([window(start_s=20.0, wait_s=10.0, compute_s=40.0, other_s=30.0, cpu_s=25.0)], FACTS)
    assert account.clips_per_s == pytest.approx(100 / 80)
    assert account.gmacs_per_s == pytest.approx(100 / 80 * 10 * 3)
    assert account.cpu_s_per_clip == 0.25
    shares = (account.start_share, account.stall_share, account.compute_share, account.all_reduce_share)
    assert (*shares, account.other_share) == pytest.approx((0.2, 0.1, 0.4, 0.0, 0.3))


def test_shares_weigh_a_large_group_more():
    account = run_account([window(workers=3, wait_s=10.0), window(workers=1, compute_s=10.0)], FACTS)
    assert account.stall_share == 0.75


def test_a_decode_bound_run_is_told_how_many_cores_are_missing():
    """60 s without waiting would take 100 clips: 1.67 clips/s x 10 CPU-seconds are 16.7 cores; 4 are there."""
    verdict = verdict_of(window(wait_s=40.0, compute_s=60.0, cpu_s=1000.0))
    assert verdict.startswith("decode-bound: training waited for data 40% of the time; ")
    assert "10 CPU-seconds a clip x 1.67 clips/s without waiting = 16.7 cores, 4 now" in verdict
    assert "add about 7 cores per worker or transcode" in verdict


def test_the_time_of_starting_changes_no_missing_core():
    verdict = verdict_of(window(start_s=50.0, wait_s=40.0, compute_s=60.0, cpu_s=1000.0))
    assert "x 1.67 clips/s without waiting = 16.7 cores" in verdict


def test_one_core_is_one_core():
    assert "add about 1 core per worker or" in verdict_of(window(wait_s=40.0, compute_s=60.0, cpu_s=250.0))


def test_waiting_although_the_cores_would_do_points_elsewhere():
    verdict = verdict_of(window(wait_s=40.0, compute_s=60.0, cpu_s=60.0))
    assert verdict.startswith("data-bound: training waited for data 40% of the time, yet its 4 decode cores should do")


@pytest.mark.parametrize("seconds", [{"wait_s": 40.0}, {"all_reduce_s": 40.0}])
def test_lost_nodes_that_decode_are_blamed_for_the_wait_of_any_worker(seconds):
    held_up = window(compute_s=60.0, **seconds)
    assert "nodes that decode were lost" not in verdict_of(held_up)
    verdict = verdict_of(held_up, facts=replace(FACTS, ingest_lost=True))
    assert verdict.endswith(
        "nodes that decode were lost (events.jsonl): keep more; with ingest.decode_elsewhere others stand in"
    )


@pytest.mark.parametrize(
    ("seconds", "begins"),
    [
        ({"compute_s": 97.0, "wait_s": 3.0}, "compute-bound: the GPUs are busy 97% of the time"),
        ({"compute_s": 60.0, "all_reduce_s": 40.0}, "communication-bound: 40% of the time"),
        ({"compute_s": 60.0, "other_s": 40.0}, "held up outside of steps: 40% of the time"),
        ({"compute_s": 10.0, "start_s": 90.0, "wait_s": 20.0}, "mostly start-up: 75% of the time"),
        ({"compute_s": 90.0, "start_s": 10.0}, "compute-bound: the GPUs are busy 100% of the time"),
        ({"compute_s": 40.0, "wait_s": 25.0, "all_reduce_s": 35.0}, "communication-bound: 35%"),
        ({"compute_s": 40.0, "wait_s": 35.0, "all_reduce_s": 25.0, "cpu_s": 1e4}, "decode-bound: "),
    ],
)
def test_the_verdict_names_what_took_most(seconds, begins):
    verdict = verdict_of(window(**seconds))
    assert verdict.startswith(begins)
    assert "\n" not in verdict


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_run_that_validates_too_often_reads_the_field_of_its_length(unit):
    verdict = run_account([window(compute_s=60.0, other_s=40.0)], replace(FACTS, unit=unit)).verdict()
    assert verdict.endswith(f"reports: raise execution.validate_every_{unit}s or checkpoint.every_minutes")


@pytest.mark.parametrize(
    ("seconds", "begins"),
    [
        ({"wait_s": 15.0, "compute_s": 15.0}, "too short a run to judge its speed: 30 s after its first batch, 60 are"),
        ({"wait_s": 15.0, "compute_s": 15.0, "cpu_s": 1e4}, "too short a run to judge its speed: 30 s"),
        ({"all_reduce_s": 15.0, "compute_s": 15.0}, "too short a run to judge its speed: 30 s"),
        ({"other_s": 15.0, "compute_s": 15.0}, "too short a run to judge its speed: 30 s"),
        ({"start_s": 40.0, "wait_s": 25.0, "compute_s": 25.0}, "too short a run to judge its speed: 50 s"),
        ({"start_s": 40.0, "wait_s": 30.0, "compute_s": 30.0}, "data-bound: "),
        ({"wait_s": 1.0, "compute_s": 29.0}, "compute-bound: "),
        ({"start_s": 20.0, "compute_s": 10.0}, "mostly start-up: 67%"),
    ],
)
def test_a_run_of_seconds_blames_nothing(seconds, begins):
    assert verdict_of(window(**seconds)).startswith(begins)


def test_a_run_without_a_step_has_an_account():
    assert verdict_of() == "no step was taken"
    assert verdict_of(window(steps=0, clips=0.0, start_s=3.0)) == "no step was taken"
    assert "no step was taken" in account_table(run_account([], FACTS))


def test_workers_without_gpus_are_called_so():
    verdict = verdict_of(window(compute_s=1.0), facts=replace(FACTS, device="cpu"))
    assert verdict.startswith("compute-bound: the workers' CPUs are busy 100% of the time")


def test_the_table_ends_with_the_verdict():
    account = run_account([window(compute_s=1.0)], FACTS)
    last = account_table(account).splitlines()[-1]
    assert last.split(maxsplit=1) == ["verdict", account.verdict()]


def test_each_epoch_has_its_points():
    windows = [window(compute_s=50.0), window(step=10, steps=0, clips=0.0, other_s=50.0)]
    windows.append(window(epoch=2, step=20, compute_s=60.0, wait_s=40.0))
    points = {(point.key, point.step): point.value for point in epoch_points(windows, FACTS)}
    assert points[Metrics.EPOCH_CLIPS_PER_S, 1] == 1.0
    assert points[Metrics.EPOCH_STALL_SHARE, 1] == 0.0
    assert points[Metrics.EPOCH_STALL_SHARE, 2] == 0.4
    assert points[Metrics.EPOCH_WORKER_HOURS, 2] == pytest.approx(200 / 3600)
    assert {step for _, step in points} == {1, 2}


def test_windows_come_back_from_the_progress_file(tmp_path):
    """Beside other lines, and without those that were cut short, the last one or one in front of a later start."""
    windows = [window(compute_s=0.1 + 0.2), window(step=20, workers=1, wait_s=2.0)]
    lines = [{"notes": ["x"]}, {"window": windows[0].to_plain()}, {"window": None}, {"window": windows[1].to_plain()}]
    progress = RunFolder(tmp_path).progress
    truncated = '{"window": {"epo'
    lines = [json.dumps(line) + "\n" for line in lines]
    progress.write_text("".join([*lines[:2], truncated, lines[0], *lines[2:], truncated]), encoding="utf-8")
    assert read_windows(progress) == windows


def test_a_run_that_never_reported_has_no_windows(tmp_path):
    assert read_windows(RunFolder(tmp_path).progress) == []


def test_steps_that_were_taken_again_are_left_out_of_what_led_to_the_end():
    first = [window(step=step) for step in (10, 20, 30)]
    start = window(step=20, steps=0)
    again = [window(step=step, workers=1) for step in (30, 40)]
    validation = window(step=40, steps=0)
    assert without_repeats([*first, start, *again, validation]) == [*first[:2], start, *again, validation]


def test_cpu_time_is_that_of_all_workers_and_of_decoding():
    windows = [replace(window(cpu_s=3.0), worker_cpu_s=2.0), replace(window(workers=1, cpu_s=1.0), worker_cpu_s=5.0)]
    assert training_cpu_s(windows) == (2.0 + 3.0) + (5.0 + 1.0)


def test_cpu_time_of_steps_that_were_taken_again_counts_each_time():
    first, again = (replace(window(cpu_s=3.0), worker_cpu_s=2.0) for _ in range(2))
    assert without_repeats([first, again]) == [again]
    assert training_cpu_s([first, again]) == 10.0


def test_a_busy_node_is_told_as_long_as_a_process_computes():
    before_s, process_s, began = node_busy_s(), time.process_time(), time.perf_counter()
    while time.process_time() - process_s < 0.1:
        pass
    assert 0.08 <= node_busy_s() - before_s <= (time.perf_counter() - began) * (os.cpu_count() or 1) + 0.1


def test_windows_written_before_cpu_time_was_told_are_read(tmp_path):
    plain = window().to_plain()
    del plain["worker_cpu_s"]
    (tmp_path / "progress.jsonl").write_text(json.dumps({"window": plain}) + "\n")
    assert training_cpu_s(read_windows(tmp_path / "progress.jsonl")) == 0.0
