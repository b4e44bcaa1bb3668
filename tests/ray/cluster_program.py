"""Runs a program that starts a cluster of its own, because the other tests of this folder hold a Ray session."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import config_to_yaml
from morphmlp.drill.processes import end_marked, marked_environment

ROOT = Path(__file__).parents[2]


def run_program(
    folder: Path, files: Mapping[str, str], config: ExperimentConfig, *arguments: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Write the files and `experiment.yaml` to a folder and run the first of them there."""
    for name, text in {**files, "experiment.yaml": config_to_yaml(config)}.items():
        (folder / name).write_text(text)
    # The cluster keeps to a folder of its own, short enough for Ray's socket names.
    with tempfile.TemporaryDirectory(prefix="mmlp-") as ray_folder:
        try:
            return subprocess.run(
                [sys.executable, next(iter(files)), str(ROOT / "pipelines" / "train_demo.py"), *arguments],
                cwd=folder,
                env=marked_environment(
                    Path(ray_folder), {"MLFLOW_TRACKING_URI": "", "RAY_TMPDIR": ray_folder, **environment}
                ),
                capture_output=True,
                text=True,
                check=False,
                timeout=580,
            )
        finally:
            end_marked(Path(ray_folder))  # Ray's fake machines leave the readers of their logs behind
