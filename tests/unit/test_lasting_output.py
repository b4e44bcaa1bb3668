"""What a long command prints decides nothing about it: its reader may go, the disk of its log may be full."""

import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import sys
from morphmlp.cli import run
from morphmlp.progress import LoggedProgress, TerminalProgress
from pathlib import Path

def main():
    with TerminalProgress() as progress:
        logged = LoggedProgress(progress, Path({log!r}))
        for number in range(3000):
            print("a result", number)
            logged.line(f"step {{number}} of the work")
    Path({done!r}).touch()
    {ending}

run(main, long=True)
"""
ENDINGS = [
    pytest.param("pass", 0, id="it's done"),
    pytest.param("from morphmlp.errors import ConfigError; raise ConfigError(['a: wrong'])", 2, id="a user's fault"),
    pytest.param("import os; os.kill(os.getpid(), 15)", 143, id="SIGTERM"),
    pytest.param("1 / 0", 1, id="a defect"),
]


def program(tmp_path, ending="pass"):
    script = tmp_path / "work.py"
    script.write_text(WORK.format(log=str(tmp_path / "log.txt"), done=str(tmp_path / "done"), ending=ending))
    return [sys.executable, str(script)]


def logged_steps(tmp_path):
    return [line.split(maxsplit=2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()]


ALL_STEPS = [f"step {number} of the work" for number in range(3000)]


@pytest.mark.parametrize(("ending", "code"), ENDINGS)
def test_a_reader_that_goes_away_ends_no_work_and_changes_no_exit_code(ending, code, tmp_path):
    process = subprocess.Popen(program(tmp_path, ending), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == code
    assert (tmp_path / "done").exists()
    assert logged_steps(tmp_path) == ALL_STEPS


@pytest.mark.parametrize(("ending", "code"), ENDINGS)
def test_a_full_disk_under_the_output_ends_no_work_and_changes_no_exit_code(ending, code, tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program(tmp_path, ending), check=False, stdout=full, stderr=full, timeout=60)
    assert done.returncode == code
    assert (tmp_path / "done").exists()
    assert logged_steps(tmp_path) == ALL_STEPS


def test_output_that_was_closed_before_the_start_ends_no_work(tmp_path):
    closed = 'exec "$0" "$1" 0<&- 1>&- 2>&-'
    subprocess.run(["sh", "-c", closed, *program(tmp_path)], check=True, timeout=60)
    assert logged_steps(tmp_path) == ALL_STEPS


def test_what_can_be_written_is_written(tmp_path):
    done = subprocess.run(program(tmp_path), check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [f"a result {number}" for number in range(3000)]
    assert [line[-len(step) :] for line, step in zip(done.stderr.splitlines(), ALL_STEPS, strict=True)] == ALL_STEPS


def test_a_short_command_ends_when_its_reader_has_enough(tmp_path):
    script = tmp_path / "table.py"
    script.write_text(
        "from morphmlp.cli import run\n\ndef main():\n    for row in range(10**6):\n        print(row)\n\nrun(main)\n"
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
