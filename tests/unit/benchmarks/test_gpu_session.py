"""A session on a lent GPU, dry on a CPU."""

import json
from pathlib import Path

import pytest

from morphmlp.benchmarks.gpu_session import SESSION, Part, run_session, session_table
from morphmlp.config import load_config

ROOT = Path(__file__).parents[3]
SHORT = Part(name="short", config=SESSION[0].config, videos=8, with_trace=True)


def test_both_sizes_are_measured_at_both_lengths_plain_and_compiled_and_cold_before_warm():
    measured = {(part.config, part.overrides) for part in SESSION}
    assert len({config for config, _ in measured}) == 4
    assert len(measured) == 10
    assert sum("--execution.kernels" in overrides for _, overrides in measured) == 2
    names = [part.name for part in SESSION]
    assert len(set(names)) == len(names)
    assert names.index("s16-blocks-cold") < names.index("s16-blocks-warm")
    assert sum(part.with_trace for part in SESSION) == 4


@pytest.mark.parametrize("part", SESSION, ids=lambda part: part.name)
def test_each_command_is_of_an_experiment_that_is_there(part, tmp_path):
    command = part.command(tmp_path, dry_run=False)
    clips = load_config(command[command.index("--config") + 1]).augment.repeats * part.videos
    assert clips in (8, 16)
    assert "--no-bytes" in command or not part.overrides  # of compiled blocks they take minutes


@pytest.mark.slow
def test_a_dry_run_keeps_what_fits_into_its_time(tmp_path):
    parts = [SHORT, Part(name="too long", config=SHORT.config, videos=8, most_s=0.2)]
    said = []
    found = run_session(tmp_path, budget_s=300, dry_run=True, log=said.append, parts=parts)
    assert [line.split(",")[0] for line in said] == ["short", "too long"]
    short, too_long = found
    assert (short.fault, too_long.fault) == ("", "ended after 0 s")
    result = json.loads((tmp_path / "short.json").read_text())
    assert short.clips_per_s == pytest.approx(result["clips_per_step"] / result["step_s"])
    assert (tmp_path / "short.trace.json.gz").stat().st_size > 1000
    assert len(session_table(found).splitlines()) == 4


def test_without_time_nothing_runs(tmp_path):
    [none] = run_session(tmp_path, budget_s=0, dry_run=True, log=print, parts=[SHORT])
    assert none.fault == "no time was left"
