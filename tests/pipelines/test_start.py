"""`pipelines/benchmark.py start` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from morphmlp.start_marks import Part

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_warm_and_cold_starts_are_measured_by_part(tmp_path):
    command = [
        sys.executable,
        "pipelines/benchmark.py",
        "start",
        "--rounds",
        "1",
        "--json",
        str(tmp_path / "start.json"),
    ]
    done = subprocess.run(
        [*command, "--cluster.num-workers", "1"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    found = {(side["what"], side["kind"]): side for side in json.loads((tmp_path / "start.json").read_text())["starts"]}
    assert set(found) == {(what, kind) for what in ("training", "test") for kind in ("warm", "cold")}
    for (what, _), side in found.items():
        assert list(side["parts"])[-1] == (Part.STEP if what == "training" else Part.SCORES)
        assert side["seconds"] == pytest.approx(sum(side["rounds"][0].values()))
        assert set(side["part_cpu_s"]) == set(side["parts"])
        # Processes that do nothing else than start aren't told by what they do then.
        assert {"the command", "decoder"} <= set(side["process_cpu_s"])
        assert sum(side["process_cpu_s"].values()) >= side["process_cpu_s"]["the command"] > 1
    assert "| training, warm | training, cold | test, warm | test, cold |" in " ".join(done.stdout.split())
