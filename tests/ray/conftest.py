"""Small real experiments on a real local Ray, shared by the tests of this folder."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from morphmlp.cluster.ray_cluster import Placement, ray_session
from morphmlp.config import ExperimentConfig, config_from_mapping, with_overrides
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset

sys.path.insert(0, str(Path(__file__).parent))  # lets tests import `sweeping` by its name

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo data set: 96 training, 16 validation and 16 test videos."""
    folder = tmp_path_factory.mktemp("videos")
    write_demo_dataset(folder, train=96, val=16, test=16)
    return folder


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with its own MLflow store."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="module", autouse=True)
def in_the_workplace(workplace: Path) -> Iterator[None]:
    """Each file's tests run there; those of other folders don't."""
    with contextlib.chdir(workplace):
        yield


@pytest.fixture(scope="session")
def make_config(videos: Path, workplace: Path) -> MakeConfig:
    """A tiny experiment on the small data set, with dotted overrides."""
    base: dict[str, JsonValue] = {
        "name": "tiny",
        "dataset": "demo",
        "model": {
            "depths": [1, 1, 1, 1],
            "embed_dims": [16, 16, 32, 32],
            "chunk_lengths": [8, 4, 4, 1],
            "mlp_ratio": 2.0,
            "drop_path_rate": 0.1,
            "num_classes": 8,
            "temporal": "mixed",
            "init": "random_projection",
        },
        "data": {split: str(videos / f"{split}.parquet") for split in ("train", "val", "test")},
        "clip": {
            "sampling": "dense",
            "num_frames": 16,
            "frame_stride": 1,
            "crop_size": 32,
            "short_edge": 36,
            "channel_order": "rgb",
        },
        "augment": {
            "repeats": 1,
            "short_edge": None,
            "rand_augment": None,
            "scale": [0.7, 1.0],
            "aspect": [0.9, 1.1],
            "flip": 0.5,
            "erase": 0.0,
        },
        "mixing": {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1},
        "optim": {"lr": 1e-3, "min_lr": 1e-5, "warmup_epochs": 1, "weight_decay": 0.05, "clip_norm": 5.0},
        "train": {"epochs": 4, "global_batch_size": 16, "micro_batch_size": 4, "precision": "fp32", "seed": 0},
        "test": {"num_clips": 2, "num_crops": 3},
        "execution": {"report_every_steps": 1},
        "cluster": {"num_workers": 2, "device": "cpu", "storage": str(workplace / "runs")},
    }

    def make(**overrides: JsonValue) -> ExperimentConfig:
        return config_from_mapping(with_overrides(base, {k.replace("__", "."): v for k, v in overrides.items()}))

    return make


@pytest.fixture(scope="session")
def placement(make_config: MakeConfig) -> Iterator[Placement]:
    """A local Ray that holds two workers and their decode tasks."""
    config = make_config()
    with ray_session(config.cluster, config.ingest, micro_batches=4) as found:
        yield found
