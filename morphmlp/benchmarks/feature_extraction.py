"""Clips a second and core of features beside a test's, and the bytes of an extraction that was killed and continued.

Times are CPU times, the decoder's process and this one together, so that a busy machine hardly moves them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.data.manifest import read_manifest, write_manifest
from morphmlp.errors import ConfigError, MorphMLPError
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.prediction.features import FeatureFiles, Stage, features_of
from morphmlp.prediction.predict import with_each_decoder
from morphmlp.prediction.sliding import Sliding, sliding
from morphmlp.prediction.trained import find_trained
from morphmlp.progress import Progress

_PIPELINE = Path(__file__).parents[2] / "pipelines" / "features.py"
_STAGE: Stage = "pooled"
_SOME_FILES = 20
"""After which the extraction is killed, or a quarter of all."""
_LONGEST_S = 1800
"""For an extraction of some hundred short videos, on however busy a machine."""


@dataclass(frozen=True, kw_only=True)
class FeatureExtraction:
    """What was measured and compared."""

    videos: int
    features_clips_per_s: float
    """Of one core: windows times crops."""
    test_clips_per_s: float
    """Of one core: the views of the test."""
    ratio: float
    """The first over the second; median of the rounds."""
    windows: int
    """Of all videos."""
    files_when_killed: int
    same_bytes: int
    """Files of the continued extraction that are those of a loop in one process, byte by byte."""
    rounds: int

    def in_words(self) -> str:
        """In a line."""
        return (
            f"features of {self.videos} videos, {self.windows} windows: {self.features_clips_per_s:.1f} clips/s per "
            f"core, a test {self.test_clips_per_s:.1f}: {self.ratio:.2f} times (medians of {self.rounds} interleaved "
            f"rounds); killed with {self.files_when_killed} files and continued: {self.same_bytes} of {self.videos} "
            "files are byte by byte those of a loop in one process"
        )


def measure_features(
    checkpoint: str, config: str | None, folder: Path, *, videos: int, hop: str, rounds: int, progress: Progress
) -> FeatureExtraction:
    """Measure on the first videos of a run's test, and extract their features into a folder, killed on the way.

    Raises:
        MorphMLPError: The weights or videos can't be used, or the extraction fails.
    """
    trained = find_trained(checkpoint, config=config, overrides={}, classes=None, log=progress.line)
    manifest = read_manifest(Path(trained.config.data.test)).available()
    manifest = replace(manifest, table=manifest.table.slice(0, videos))
    rows = manifest.table.to_pylist()
    paths = [str(row["path"]) for row in rows]
    model = trained.video_model()
    windows = sliding(trained.config.test_clip, window=None, hop=hop, to_the_end=False)
    torch.set_num_threads(1)
    alone = [_features(model, windows, path) for path in paths]  # warms up as well
    ways: dict[str, Callable[[str], int]] = {
        "features": lambda path: _features(model, windows, path)[0],
        "test": lambda path: _views(model, path),
    }
    clips_per_s: dict[str, list[float]] = {name: [] for name in ways}
    progress.phase("features and views", total=rounds * len(ways), unit="rounds")
    for number, name in interleaved(list(ways), rounds):
        began = _cpu_s(model)
        clips = sum(ways[name](path) for path in paths)
        clips_per_s[name].append(clips / (_cpu_s(model) - began))
        progress.update(number + 1)
    source = folder / "videos.parquet"
    write_manifest(manifest, source)
    named = ["--checkpoint", checkpoint, *([] if config is None else ["--config", config]), "--hop", hop]
    files = FeatureFiles(folder=folder / "features")
    killed = _killed_and_continued([str(source), *named], files, after=max(min(_SOME_FILES, len(paths) // 4), 1))
    ids = [str(row["video_id"]) for row in rows]
    same = [files.of(name, "npy").read_bytes() == content for name, (_, content) in zip(ids, alone, strict=True)]
    return FeatureExtraction(
        videos=len(paths),
        features_clips_per_s=median(clips_per_s["features"]),
        test_clips_per_s=median(clips_per_s["test"]),
        ratio=median_ratio(clips_per_s["features"], clips_per_s["test"]),
        windows=sum(count for count, _ in alone) // trained.config.test.num_crops,
        files_when_killed=killed,
        same_bytes=sum(same),
        rounds=rounds,
    )


def _features(model: VideoModel, windows: Sliding, path: str) -> tuple[int, bytes]:
    """How many clips a video's windows have, and its file."""
    found = with_each_decoder(model, path, lambda reader: features_of(model, reader, windows, _STAGE))
    return len(found.values) * model.config.test.num_crops, found.content("npy")


def _views(model: VideoModel, path: str) -> int:
    logits = model.view_logits(path)
    if isinstance(logits, str):
        raise ConfigError([f"{path}: can't be used: {logits}"])
    return len(logits)


def _cpu_s(model: VideoModel) -> float:
    """Of this process and its decoders so far."""
    return time.process_time() + sum(model.policy.opener(name).cpu_s for name in model.policy.decoders())


def _killed_and_continued(arguments: Sequence[str], files: FeatureFiles, *, after: int) -> int:
    """Extract with a SIGKILL of all processes once so many files are there; returns how many there were."""
    command = [sys.executable, str(_PIPELINE), *arguments, "--stage", _STAGE, "--output", str(files.folder)]
    process = _started(command)
    try:
        ends = time.monotonic() + _LONGEST_S
        while len(list(files.folder.glob("*.npy"))) < after and process.poll() is None:
            if time.monotonic() > ends:
                raise MorphMLPError(f"features.py wrote no {after} files in {_LONGEST_S} s")
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    there = len(list(files.folder.glob("*.npy")))
    process = _started(command)
    _, errors = process.communicate(timeout=_LONGEST_S)
    if process.returncode:
        raise MorphMLPError(f"features.py failed: {errors.strip().splitlines()[-1]}")
    return there


def _started(command: Sequence[str]) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
