"""The first experiment of `prepare.py folder`: training takes its file, for videos and images, fresh or fine-tuned."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_here import run_here

from morphmlp.config import load_config
from morphmlp.config.loading import config_from_mapping, config_to_mapping, parse_yaml
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import train_extractor
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.data.decoding.stored_frames.frame_stores import open_image
from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.kinetics_layout import write_video
from morphmlp.models.presets import preset
from morphmlp.preparation.starter import DataFacts, _quoted, starter_experiment
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
    done = run_here(ROOT / "pipelines" / "prepare.py", "folder", *arguments)
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


@pytest.mark.parametrize(
    "text", ["@x", "%x", "- x", "my: videos", "[x", "rel,eased.pth", "null", "1.5", "a # b", "true"]
)
def test_any_path_can_be_written_as_a_value_in_block_and_flow(text):
    assert parse_yaml(f"x: {_quoted(text)}") == {"x": text}
    assert parse_yaml(f"x: {{y: {_quoted(text)}, z: 1}}") == {"x": {"y": text, "z": 1}}


@pytest.mark.parametrize(
    ("frames", "fps", "stride", "clips"),
    [(300, 30.0, 4, 4), (90, 30.0, 4, 1), (40, 30.0, 2, 1), (16, 30.0, 1, 1), (150, 15.0, 4, 4)],
)
def test_clips_are_no_longer_than_the_videos_and_cover_them_together(frames, fps, stride, clips):
    info = replace(facts().seen[0], num_frames=frames, fps=fps, pts_s=tuple(frame / fps for frame in range(frames)))
    text = starter_experiment(replace(facts(), seen=[info] * 3), starter="scratch", weights=None, stated=None)
    config = config_from_mapping(parse_yaml(text))
    assert (config.clip.num_frames, config.clip.frame_stride, config.test.num_clips) == (16, stride, clips)
    assert 16 * stride / 30 <= frames / fps


@pytest.mark.parametrize(
    ("starter", "share", "most", "steps"), [("scratch", 1, 200, 12_000), ("finetune", 0.25, 30, 3_000)]
)
@pytest.mark.parametrize("videos", [6, 60, 600, 6000, 60_000])
def test_batches_rates_and_epochs_follow_from_the_number_of_videos(videos, starter, share, most, steps):
    text = starter_experiment(facts(counts=(videos // 3,) * 3), starter=starter, weights=None, stated=None)
    config = config_from_mapping(parse_yaml(text))
    batch, epochs = config.train.global_batch_size, config.train.epochs
    assert batch <= min(videos, 64)
    assert batch <= 8 or videos >= 16 * batch  # some 16 steps an epoch
    assert config.optim.lr == pytest.approx(share * 4e-4 * batch / 64, rel=0.01)
    assert config.optim.warmup_epochs == max(1, round(epochs / 10)) <= epochs <= most
    assert epochs == most or epochs * (videos // batch) >= steps


def test_weights_of_a_video_network_fine_tune_on_images_as_an_image_network():
    stated = preset("morphmlp_s_16x4")
    text = starter_experiment(facts(items="images"), starter="finetune", weights="w.pth", stated=stated)
    config = config_from_mapping(parse_yaml(text))
    assert (config.model.temporal, config.clip.num_frames) == ("none", 1)


def test_an_output_among_the_class_folders_is_refused(tmp_path):
    (tmp_path / "videos" / "a").mkdir(parents=True)
    command = [sys.executable, str(ROOT / "pipelines" / "prepare.py"), "folder", "videos", "--output", "videos/out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --output: videos/out lies among the class folders")
