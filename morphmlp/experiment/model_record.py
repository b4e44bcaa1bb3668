"""The network that was tested, as a model of MLflow, and what compares networks in MLflow's pages."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue
from torch import Tensor

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import flat_fields
from morphmlp.evaluation.video_model import VideoModel, save_model
from morphmlp.experiment.data_splits import DataSplits
from morphmlp.models.planned_cost import experiment_cost
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tracking import RunWriter

_EXAMPLES = 2
_LISTS = ("chunk_lengths", "depths", "embed_dims")


def record_params(config: ExperimentConfig) -> dict[str, JsonValue]:
    """A run's parameters: every field, and the network's lists as short texts, by which MLflow groups and draws."""
    lists = {name: getattr(config.model, name) for name in _LISTS}
    short = {f"network.{name}": "-".join(map(str, values)) for name, values in lists.items() if values}
    return {**flat_fields(config), **short}


def network_points(config: ExperimentConfig) -> list[MetricPoint]:
    """What the network costs, of one view of the test."""
    cost = experiment_cost(config, view_size=config.test.crop_size)
    return [
        MetricPoint.now(Metrics.NETWORK_GMACS, cost.gmacs),
        MetricPoint.now(Metrics.NETWORK_PARAMS_M, cost.params / 1e6),
    ]


def log_tested_model(
    config: ExperimentConfig,
    weights: Mapping[str, Tensor],
    data: DataSplits,
    *,
    scores: Mapping[str, float],
    step: int,
    writer: RunWriter,
) -> str:
    """Log a classification network with the weights of a checkpoint, its first test videos as example; its id."""
    from morphmlp.tracking.models import ModelToLog  # noqa: PLC0415 (seconds that a run without one needn't wait)

    with tempfile.TemporaryDirectory(prefix="network-") as scratch:
        folder = Path(scratch)
        save_model(folder, config, weights, data.train.class_names)
        return writer.model(
            ModelToLog(
                name=config.name,
                predictor=VideoModel,
                folder=folder,
                example=data.test.table["path"].slice(0, _EXAMPLES).to_pylist(),
                params={
                    **{f"test/{key}": f"{score:.2f}" for key, score in scores.items()},
                    Tags.DATA_TEST: data.fingerprints["test"],
                    "views": config.test_in_words,
                },
                step=step,
                register_as=config.record.register_as,
            )
        )
