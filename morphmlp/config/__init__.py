"""What defines an experiment, as frozen values; importable without torch, Ray or MLflow."""

from morphmlp.config.loading import config_from_mapping, load_config, with_overrides
from morphmlp.config.model import ModelConfig
from morphmlp.config.schema import ExperimentConfig

__all__ = ["ExperimentConfig", "ModelConfig", "config_from_mapping", "load_config", "with_overrides"]
