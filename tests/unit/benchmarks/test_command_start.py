"""The waiting time of a user, by part."""

import os
from dataclasses import replace

import pytest

from morphmlp.benchmarks.command_start import BareShape, forget_files
from morphmlp.benchmarks.start_tables import StartTimes, cpu_tables, floor_tables, starts_table
from morphmlp.config.operation import ClusterConfig, WorkerRange
from morphmlp.start_marks import Part


def side(what, kind, **parts):
    parts = {Part[name.upper()]: seconds for name, seconds in parts.items()}
    return StartTimes(
        what=what,
        kind=kind,
        seconds=sum(parts.values()),
        parts=parts,
        rounds=[parts],
        part_cpu_s={part: 2 * seconds for part, seconds in parts.items()},
        process_cpu_s={"Scorer": 5.0, "the command": 1.0},
        processes={"Scorer": 2, "the command": 1},
    )


def test_parts_stand_in_the_order_of_a_start_and_trainings_before_tests():
    found = [side("test", "cold", scores=2.0, imports=1.0), side("training", "warm", imports=3.0, step=0.25)]
    header, _, *rows = (line.split("|")[1:-1] for line in starts_table(found).splitlines())
    assert [cell.strip() for cell in header] == ["part (s)", "training, warm", "test, cold"]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["imports", "3.00", "1.00"],
        ["first step", "0.25", "-"],
        ["first scores", "-", "2.00"],
        ["all", "3.25", "3.00"],
    ]


def test_cpu_time_stands_by_part_and_by_kind_of_process():
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in cpu_tables(side("test", "warm", ray=0.5)).splitlines()
    ]
    assert [row for row in rows if row and not set(row[0]) <= set(":-")] == [
        ["part of a warm test", "s", "CPU s"],
        ["Ray", "0.50", "1.00"],
        ["processes of a warm test", "number", "CPU s"],
        ["Scorer", "2", "5.00"],
        ["the command", "1", "1.00"],
        ["all", "3", "6.00"],
    ]


def test_next_to_a_program_without_morphmlp_stands_what_a_command_adds_to_it():
    warm = side("test", "warm", ray=0.5)
    bare = replace(warm, kind="bare", process_cpu_s={"Scorer": 3.5, "GCS": 0.25}, processes={"Scorer": 1, "GCS": 1})
    (table,) = floor_tables([side("training", "warm", ray=0.5), warm, bare])
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    assert header == ["processes of a test", "number", "CPU s", "bare: number", "CPU s", "added"]
    assert rows == [
        ["Scorer", "2", "5.00", "1", "3.50", "+1.50"],
        ["the command", "1", "1.00", "0", "0.00", "+1.00"],
        ["GCS", "0", "0.00", "1", "0.25", "-0.25"],
        ["all", "3", "6.00", "2", "3.75", "+2.25"],
    ]


@pytest.mark.parametrize(
    ("cluster", "cpus", "shape"),
    [
        (ClusterConfig(num_workers=2), 4, BareShape(workers=2, tasks=2)),
        (ClusterConfig(num_workers=2, cpus_per_worker=3), 8, BareShape(workers=2, tasks=2)),
        (ClusterConfig(num_workers=WorkerRange(min=2, max=4)), 8, BareShape(workers=2, tasks=6)),
        (ClusterConfig(), 4, BareShape(workers=1, tasks=3)),
        (ClusterConfig(num_workers=2), 2, BareShape(workers=2, tasks=2)),
    ],
)
def test_a_bare_program_asks_for_as_many_processes_as_a_command(cluster, cpus, shape):
    assert BareShape.of(cluster, cpus=cpus) == shape


def test_files_that_are_forgotten_are_what_they_were(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_bytes(os.urandom(10_000))
    before = (tmp_path / "package" / "code.py").read_bytes()
    (tmp_path / "package" / "gone.so").symlink_to(tmp_path / "nowhere.so")
    forget_files([tmp_path])
    assert (tmp_path / "package" / "code.py").read_bytes() == before
