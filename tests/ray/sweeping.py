"""Sweeps over given points, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from morphmlp.config.loading import config_to_mapping
from morphmlp.config.sweep import sweep_to_yaml
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset

PATIENCE_S = 450


def swept_points(root, config, sweep, points, *, train, val):
    """Run a sweep on a small data set in `root`.

    Returns:
        The content of its JSON, the address of its store, and its folder.
    """
    write_demo_dataset(root / "demo", train=train, val=val, test=8)
    base = config_to_mapping(config)
    base["data"] = {split: str(root / "demo" / f"{split}.parquet") for split in ("train", "val", "test")}
    (root / "base.yaml").write_text(yaml.safe_dump(base))
    (root / "sweep.yaml").write_text(sweep_to_yaml(sweep))
    (root / "points.json").write_text(json.dumps(points))
    uri = f"sqlite:///{root / 'record' / 'mlflow.db'}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sweep_program.py")), str(root)],
        env={**environment, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((root / "result.json").read_text()), uri, root / "runs" / sweep.name
