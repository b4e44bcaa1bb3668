"""The multi-view test's pipeline on a real Ray."""

from collections.abc import Callable
from pathlib import Path

import pytest

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import read_manifest
from morphmlp.evaluation.ray_evaluator import ScorerPool, scoring_dataset
from morphmlp.tasks.factory import task_of


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ray_takes_the_pipeline_for_every_device(
    device: str, videos: Path, make_config: Callable[..., ExperimentConfig], placement: Placement
) -> None:
    """Nothing runs yet; but for GPUs Ray asks for more when the pipeline is made."""
    config = make_config()
    dataset = scoring_dataset(
        task_of(config),
        {},
        read_manifest(videos / "test.parquet"),
        pool=ScorerPool(num_workers=1, cpus_per_worker=1, device=device, node_labels={}),
        share=placement.ingest_share(config.ingest, pipelines=1),
        videos_at_once=4,
    )
    assert "Scorer" in repr(dataset)
