"""`pipelines/replay.py` as a user runs it, on a run that died before its first checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from run_here import run_here

from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipelines" / "replay.py"


def replay(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    write_demo_dataset(folder / "videos", train=8, val=8, test=8)
    content = yaml.safe_load((ROOT / "experiments/demo/morphmlp_demo.yaml").read_text(encoding="utf-8"))
    content["data"] = {split: str(folder / "videos" / f"{split}.parquet") for split in ("train", "val", "test")}
    content["train"] |= {"global_batch_size": 4, "micro_batch_size": 2, "precision": "fp32"}
    (folder / "runs" / "died").mkdir(parents=True)
    (folder / "runs" / "died" / "experiment.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "runs"


def test_a_step_is_told_in_words_drawn_and_written_as_json(storage, tmp_path):
    done = replay(
        *("died", 2, "--storage", storage, "--workers", 2, "--device", "cpu"),
        *("--contact-sheet", tmp_path / "new" / "sheet.png", "--json", tmp_path / "step.json"),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{storage / 'died'}: step 2 (epoch 1), 2 worker(s), fp32, cpu"
    assert (
        lines[1]
        == "state: the beginning, for there is no checkpoint before the step; steps trained again up to this one: 1"
    )
    assert [line.split(":")[0] for line in lines if line.startswith("micro-batch")] == [
        "micro-batch 0 (worker 0)",
        "micro-batch 1 (worker 1)",
    ]
    assert lines[-2].startswith("step: loss ")
    assert lines[-2].endswith(" before clipping, taken")
    assert (tmp_path / "new" / "sheet.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / "step.json").read_text(encoding="utf-8"))
    assert (content["step"], content["num_workers"], content["skipped"]) == (2, 2, False)
    videos = [video for batch in content["micro_batches"] for video in batch["videos"]]
    assert len({video["video_id"] for video in videos}) == 4
    assert all(video["path"] in done.stdout for video in videos)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing", 1], "nothing: no such run"),
        (["died", 1, "--contact-sheet", "sheet.xyz"], "--contact-sheet: sheet.xyz must end in .png, .pdf or .svg"),
    ],
)
def test_faults_are_one_clear_line(storage, arguments, told):
    done = run_here(SCRIPT, *arguments, "--storage", storage, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {told}")
    assert len(done.stderr.splitlines()) == 1
