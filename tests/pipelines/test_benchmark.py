"""`pipelines/benchmark.py decoders` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coded_videos import CODINGS, copy_stream, write_video
from run_here import run_here

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipelines" / "benchmark.py"


def benchmark(*arguments, cwd=None):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.slow
def test_the_decoders_are_compared_on_a_users_own_files(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    whole = write_video(folder / "whole.mp4", CODINGS["short groups"])
    copy_stream(whole, folder / "trimmed.mp4", first=18)
    (folder / "broken.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    done = benchmark("decoders", "--videos", folder, "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (result["videos"], result["unreadable"]) == (3, 1)
    found = {decoder["name"]: decoder for decoder in result["decoders"]}
    pyav = found["pyav"]
    assert (pyav["wrong"], pyav["checked"], pyav["failed"]) == (0, 256, 1)
    assert pyav["errors"] == {"DecodeError": 1}
    assert pyav["clips"] == 4
    assert pyav["cpu_ms"] > 0
    assert result["advice"].startswith("pyav: no wrong frames")
    assert done.stdout.splitlines()[-1] == result["advice"]
    assert "| pyav " in done.stdout
    if "decord" in found:  # it ignores edit lists, in silence
        assert found["decord"]["wrong"] > 0 or found["decord"]["failed"] > 1
        assert "trimmed.mp4" in result["advice"] or "decord failed on" in result["advice"]


def test_a_folder_without_videos_is_one_clear_line(tmp_path):
    done = run_here(SCRIPT, "decoders", "--videos", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}: holds no videos")


def test_a_folder_without_anything_to_send_to_a_server_is_one_clear_line(tmp_path):
    done = run_here(SCRIPT, "serve", "--checkpoint", "no.pth", "--videos", tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}: holds no videos (looked for .3gp ")


@pytest.mark.slow
def test_a_server_that_doesnt_start_is_one_clear_line(tmp_path):
    write_video(tmp_path / "whole.mp4", CODINGS["short groups"])
    done = benchmark("serve", "--checkpoint", tmp_path / "gone.pth", "--videos", tmp_path, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: pipelines/serve.py didn't start: --checkpoint: {tmp_path}/gone.pth: no such file")


@pytest.mark.parametrize("arguments", [("step-variants", "--rounds", "0"), ("ingest-ahead", "--rounds", "many")])
def test_a_number_that_measures_nothing_is_refused_in_one_line_before_anything_runs(arguments):
    done = run_here(SCRIPT, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    reason = {"0": "0 is not in the range x>=1.", "many": "'many' is not a valid count."}[arguments[-1]]
    assert done.stderr == f"error: Invalid value for '--rounds': {reason}\n"


TINY = """
import dataclasses, json, sys
from pathlib import Path
from morphmlp.benchmarks.ray_images import images_table, measure_images
from morphmlp.benchmarks.ray_ingest import Effort
from morphmlp.progress import TerminalProgress

tiny = Effort(images=3, rounds=1, read=128, warm_up=128)
with TerminalProgress() as progress:
    found = measure_images(Path(sys.argv[1]), quick=True, progress=progress, effort=tiny)
print(images_table(found), json.dumps(dataclasses.asdict(found)), sep="\\n")
"""


@pytest.mark.long
def test_images_are_measured_against_both_loaders_in_a_tiny_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TINY, str(tmp_path)], capture_output=True, text=True, check=False, timeout=230, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    *_, line = done.stdout.splitlines()
    found = json.loads(line)
    assert found["ratio_to_torchvision"] > 0
    assert found["ratio_to_timm"] > 0
    assert found["images_per_s_core"].keys() == {"ours", "torchvision", "timm"}
    assert found["decoders"]["simplejpeg"]["most_off"] == 0
    assert "times timm's loader" in done.stdout


TINY_SCENES = """
import dataclasses, json, sys
from pathlib import Path
from morphmlp.benchmarks.ray_ingest import Effort
from morphmlp.benchmarks.ray_scenes import measure_scenes, scenes_table
from morphmlp.progress import TerminalProgress

tiny = Effort(images=2, rounds=1, read=32, warm_up=32)
with TerminalProgress() as progress:
    found = measure_scenes(Path(sys.argv[1]), quick=True, progress=progress, effort=tiny)
print(scenes_table(found), json.dumps(dataclasses.asdict(found)), sep="\\n")
"""


@pytest.mark.long
def test_crops_with_label_maps_are_measured_against_opencv_in_a_tiny_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TINY_SCENES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=230,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    *_, line = done.stdout.splitlines()
    found = json.loads(line)
    assert found["ratio_to_opencv"] > 0
    assert found["steps_ratio"] > 0
    assert found["crops_per_s_core"].keys() == {"ours", "opencv"}
    assert "times a torch DataLoader's with OpenCV" in done.stdout
