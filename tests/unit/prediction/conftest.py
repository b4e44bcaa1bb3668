"""Small networks with fresh weights, and files of all kinds to look at."""

import os
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from coded_videos import Coding, moving_pictures, write_video
from PIL import Image

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_yaml
from morphmlp.tasks.factory import task_of

UNIT = Path(__file__).parents[1]
NAMES = ("asleep", "boiling", "cutting", "dancing")


@dataclass(frozen=True)
class Place:
    """A folder with experiments and weights by kind: video, image, scenes; and a list of class names."""

    root: Path

    def arguments(self, kind="video"):
        return (
            *("--checkpoint", str(self.root / f"{kind}.pth"), "--config", str(self.root / f"{kind}.yaml")),
            *("--classes", str(self.root / "classes.txt")),
        )

    def config(self, kind="video"):
        return load_config(self.root / f"{kind}.yaml")


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    (root / "classes.txt").write_text("\n".join(NAMES))
    of_images = {
        **{"model.temporal": "none", "clip.num_frames": 1, "clip.frame_stride": None, "clip.sampling": "segments"},
        "test.num_clips": 1,
    }
    for kind, base, overrides in (
        ("video", "small_experiment", {}),
        ("image", "small_experiment", of_images),
        ("scenes", "small_segmentation", {}),
    ):
        config = load_config(UNIT / f"{base}.yaml", overrides)
        (root / f"{kind}.yaml").write_text(config_to_yaml(config))
        torch.manual_seed(0)
        network = task_of(config).network()
        with torch.no_grad():  # a fresh head gives each class about the same
            for name, parameter in network.named_parameters():
                if "head" in name:
                    parameter.mul_(30)
        torch.save(network.state_dict(), root / f"{kind}.pth")
    return Place(root)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder of files by what they are."""
    root = tmp_path_factory.mktemp("files")
    h264 = {"codec": "libx264", "options": {"g": "12", "bf": "3"}}
    write_video(root / "whole.mp4", Coding(file="", **h264))
    write_video(root / "one_frame.mp4", Coding(file="", **h264), pictures=moving_pictures()[:1])
    write_video(root / "short.mp4", Coding(file="", **h264), pictures=moving_pictures()[:3])
    (root / "text.mp4").write_text("no video at all\n" * 40)
    (root / "nothing.mp4").touch()
    (root / "empty").mkdir()
    cut = (root / "whole.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(cut[: len(cut) // 2])
    with av.open(str(root / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    Image.fromarray(moving_pictures()[0]).save(root / "picture.png")
    frames = root / "as_frames"
    frames.mkdir()
    for number, picture in enumerate(moving_pictures()[:8]):
        Image.fromarray(picture).save(frames / f"{number + 1:05}.jpg")
    named = os.fsencode(root) + b"/h\xf4tel.mp4"
    Path(os.fsdecode(named)).write_bytes((root / "whole.mp4").read_bytes())
    return root
