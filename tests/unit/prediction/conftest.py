"""Small networks with fresh weights, files of all kinds to look at, and `predict.py` as a user runs it."""

import io
import os
import resource
import runpy
import signal
import sys
from contextlib import contextmanager
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
SCRIPT = UNIT.parents[1] / "pipelines" / "predict.py"
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


@pytest.fixture
def predict(monkeypatch, capfd):
    """Runs the command in this process; gives its exit code, lines of output and lines of errors without the time."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        captured = capfd.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        return left.value.code or 0, captured.out.splitlines(), errors

    return run


@pytest.fixture
def small_disk():
    """A block in which no file gets longer than 4 KiB."""

    @contextmanager
    def limited():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)

    return limited
