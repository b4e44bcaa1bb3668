"""The first experiment of `prepare.py folder`: training takes its file, for videos and images, fresh or fine-tuned."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from morphmlp.config import load_config
from morphmlp.config.loading import config_from_mapping, config_to_mapping, parse_yaml
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import train_extractor
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.data.decoding.stored_frames.frame_stores import open_image
from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.kinetics_layout import write_video
from morphmlp.preparation.starter import DataFacts, starter_experiment
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.task import network_input
from morphmlp.training.loop.state import new_state, snapshot
from morphmlp.training.weights.start import start, with_checked_weights

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


def facts(*, counts=(40, 40, 40), items="videos", edge=256):
    still = items == "images"
    info = VideoInfo(
        num_frames=1 if still else 300,
        fps=30.0,
        pts_s=(0.0,) if still else tuple(frame / 30 for frame in range(300)),
        width=edge * 4 // 3,
        height=edge,
        codec="h264",
    )
    return DataFacts(
        dataset="mine",
        items=items,
        manifests={split: f"data/mine/{split}.parquet" for split in ("train", "val", "test")},
        videos={"train": sum(counts), "val": 10, "test": 10},
        class_counts=counts,
        seen=[info] * 3,
    )


def fresh(config):
    return new_state(task_of(config), train=config.train, optim=config.optim, device=CPU)


def prepare_folder(*arguments):
    command = [sys.executable, str(ROOT / "pipelines" / "prepare.py"), "folder", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("edge", [36, 120, 256])
@pytest.mark.parametrize("items", ["videos", "images"])
@pytest.mark.parametrize("starter", ["scratch", "finetune"])
def test_what_is_offered_can_be_taken_up_line_by_line_and_all_together(starter, items, edge):
    text = starter_experiment(
        facts(counts=(90, 3, 30), items=items, edge=edge), starter=starter, weights=None, stated=None
    )
    offered = re.findall(r"^  # (\w+): .*  # \w.+$", text, re.MULTILINE)
    expected = ["early_stopping", "class_weights"]
    if starter == "finetune":
        expected = ["layer_decay", "head_lr_factor", *expected, "freeze"]
    assert offered == expected
    assert max(len(line) for line in text.splitlines() if line.startswith("  # ")) <= 110
    plain = config_from_mapping(parse_yaml(text))
    for name in offered:
        config = config_from_mapping(parse_yaml(re.sub(rf"^  # ({name}: )", r"  \1", text, flags=re.MULTILINE)))
        section = config.optim if name in ("layer_decay", "head_lr_factor") else config.train
        assert getattr(section, name) is not None
        assert config != plain
    everything = config_from_mapping(parse_yaml(re.sub(r"^  # (\w+: )", r"  \1", text, flags=re.MULTILINE)))
    assert everything.train.class_weights == "balanced"


def test_class_weights_are_only_offered_where_classes_are_uneven():
    even = starter_experiment(facts(counts=(40, 30, 25)), starter="scratch", weights=None, stated=None)
    assert "class_weights" not in even


def test_fine_tuning_starts_from_the_network_that_released_weights_have():
    config = config_from_mapping(parse_yaml(starter_experiment(facts(), starter="finetune", weights=None, stated=None)))
    published = load_config(ROOT / "experiments" / "k400" / "morphmlp_s_16x4.yaml").model
    assert config.start_from.weights == "mlp_s16x4_k400.pth"
    assert (config.model.depths, config.model.embed_dims) == (published.depths, published.embed_dims)
    assert (config.model.chunk_lengths, config.model.num_classes) == (published.chunk_lengths, 3)


def test_a_checkpoint_of_other_classes_is_fine_tuned_by_the_file_that_the_command_writes(tmp_path):
    demo = load_config(ROOT / "experiments" / "demo" / "morphmlp_demo.yaml", {"train.seed": 5})
    source = fresh(demo)
    torch.save(snapshot(source, config=demo, data_fingerprint="1:a"), tmp_path / "checkpoint.pt")
    for place, name in enumerate(("run", "sit", "walk")):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng([place, number]).integers(0, 255, (18, 36, 40, 3), dtype=np.uint8)
            write_video(tmp_path / "videos" / name / f"{number}.mp4", pixels)
    weights = ("--starter", "finetune", "--weights", tmp_path / "checkpoint.pt")
    prepare_folder(tmp_path / "videos", "--output", tmp_path / "out", "--split", "1/1/1", *weights)
    config = load_config(tmp_path / "out" / "experiment.yaml")
    assert (config.name, config.model.num_classes, demo.model.num_classes) == ("out-finetune", 3, 8)
    assert config_to_mapping(config)["model"] == config_to_mapping(demo)["model"] | {"num_classes": 3}
    names = read_manifest(tmp_path / "out" / "train.parquet").class_names
    checked = with_checked_weights(config, names)
    state, drawn = fresh(checked), fresh(checked).model.state_dict()
    lines = start(state, checked, names, data_fingerprint="1:b")
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, drawn[name] if name.startswith("head.") else source.model.state_dict()[name]), name
    assert lines[-1].endswith(" taken, 2 fresh, 2 of the file left")


def test_class_folders_of_photos_train_a_network_of_one_frame(tmp_path):
    for place, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng([place, number]).integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    prepare_folder(tmp_path / "photos", "--output", tmp_path / "out", "--split", "1/1/1")
    config = load_config(tmp_path / "out" / "experiment.yaml")
    assert (config.model.temporal, config.clip.num_frames) == ("none", 1)
    table = read_manifest(tmp_path / "out" / "train.parquet").table
    clips = [
        train_extractor(config.clip, config.augment)
        .extract(open_image(path), ClipKey(seed=0, epoch=0, video_id=path))
        .clips
        for path in table["path"].to_pylist()
    ]
    task, state = task_of(config), fresh(config)
    before = {name: value.detach().clone() for name, value in state.model.named_parameters()}
    outputs = state.model(network_input(torch.from_numpy(np.concatenate(clips)), state.model, CPU))
    assert outputs.shape == (2, 2)
    task.loss_sum(outputs, task.targets(torch.tensor(table["label"].to_pylist()))).backward()
    state.optimizer.step()
    assert any(not torch.equal(value, before[name]) for name, value in state.model.named_parameters())
    assert all(value.isfinite().all() for value in state.model.parameters())
