"""What each kind of process imports: seconds of its start, which a single line at a module's head can bring back.

Modules that several kinds need are imported once, in a process that forks for each kind.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOR_FEW = ("mlflow", "sqlalchemy", "alembic", "matplotlib", "sklearn", "statsmodels", "torchmetrics", "optuna")
"""What a process needs that keeps the record or draws, and no other."""
AT_WORK = (
    *FOR_FEW,
    "scipy",
    "tabulate",
    "jinja2",
    "torchvision",
    "cv2",
    "ray.tune",
    "ray.serve",
    "torch._inductor",
    "triton",
)
"""What no process needs that trains, decodes or scores."""
WITHOUT_DECODERS = (*AT_WORK, "av")
"""Decoders have processes of their own."""
WITHOUT_TORCH = (*AT_WORK, "torch", "einops", "av", "PIL")

KINDS = {
    "a decoder": ("", ["morphmlp.data.decoding.isolation.child"], (*WITHOUT_TORCH[:-2], "ray", "pandas", "click")),
    "what joins Ray": ("ray", ["morphmlp.cluster.ray_cluster"], (*WITHOUT_TORCH, "pandas", "pyarrow", "ray.data")),
    "Ray Train's controller": (
        "ray.train",
        [f"morphmlp.training.workers.{name}" for name in ("ray_job", "ray_process_group", "ray_record")],
        WITHOUT_TORCH,
    ),
    "train.py": (
        "torch",
        ["morphmlp.cli", "morphmlp.experiment.ray_pipeline"],
        (*FOR_FEW, "triton", "torch._dynamo", "sympy", "av"),
    ),
    "evaluate.py": ("torch", ["morphmlp.cli", "morphmlp.experiment.ray_evaluation"], (*FOR_FEW, "av")),
    "a training worker": ("torch", ["morphmlp.training.workers.ray_worker"], WITHOUT_DECODERS),
    "a decode task": ("torch", ["morphmlp.cluster.ray_decoding", "morphmlp.data.stream.decode_task"], WITHOUT_DECODERS),
    "a scorer": ("torch", ["morphmlp.evaluation.ray_evaluator", "morphmlp.tasks.classification"], WITHOUT_DECODERS),
}
"""By kind: the last of `SHARED` that it needs anyway, what it imports, and what it must not import by that."""
CHECKS = """
from morphmlp.config import load_config
from morphmlp.training.loop.device_choices import at_most_activations

at_most_activations(load_config("../experiments/demo/morphmlp_demo.yaml", {}))
"""
DONE = {"train.py": CHECKS}
"""What it does then, without importing more."""
SHARED = ["", "ray", "ray.train", "ray.train.v2.api.data_parallel_trainer", "torch"]

LOOK = """
import importlib, json, os, sys
shared, kinds, done = json.loads(sys.argv[1])
for last in shared:
    if last:
        importlib.import_module(last)
    for kind, (needs, modules, without) in kinds.items():
        if needs != last:
            continue
        if (child := os.fork()) == 0:
            for module in modules:
                importlib.import_module(module)
            exec(done.get(kind, ""))
            print(json.dumps([kind, [name for name in without if name in sys.modules]]), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What each kind of process has imported in vain."""
    looked = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps([SHARED, KINDS, DONE])],
        cwd=ROOT / "pipelines",
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(map(json.loads, looked.stdout.splitlines()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_imports_nothing_in_vain(kind, loaded):
    assert loaded[kind] == []
