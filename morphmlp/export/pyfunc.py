"""A network as a model of MLflow, which brings this package along: paths in, names out, and label maps of images."""

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image
from torch import Tensor

from morphmlp.config import ExperimentConfig
from morphmlp.errors import ExportError
from morphmlp.evaluation.scene_model import SegmentationModel
from morphmlp.evaluation.video_model import VideoModel, save_model
from morphmlp.export.facts import METADATA_KEY, ExportedFacts
from morphmlp.export.forms import FILES, form_text
from morphmlp.export.parity import BATCH_SIZES, Parity, seeded_pixels

PathModel = VideoModel | SegmentationModel
_TOOLS = ("benchmarks", "drill", "__pycache__")
"""What no model needs: tools of the repository."""
_PACKAGE_BYTES = 4 * 2**20
"""This package and MLflow's own files, with some room."""
_VIDEO_FRAMES = 24
"""Frames of a seeded video; a clip that reaches further repeats the last one."""


def write_pyfunc(
    folder: Path,
    config: ExperimentConfig,
    weights: Mapping[str, Tensor],
    class_names: Sequence[str],
    facts: ExportedFacts,
) -> Parity:
    """Save the model below `folder`, and measure its logits against the network's on seeded videos or images.

    Raises:
        ExportError: It can't read what it is tried on.
        OSError: The disk hasn't the space.
    """
    _require_space(folder, weights)
    from morphmlp.tracking.models import load_path_model, save_path_model  # noqa: PLC0415 (seconds)

    made_by: type[PathModel] = VideoModel if config.segmentation is None else SegmentationModel
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as scratch:
        place = Path(scratch)
        files = _seeded_files(place, config)
        (network := place / "network").mkdir()
        save_model(network, config, weights, class_names)
        package = place / "morphmlp"
        shutil.copytree(Path(__file__).parents[1], package, ignore=shutil.ignore_patterns(*_TOOLS))
        save_path_model(
            place / FILES["pyfunc"],
            predictor=made_by,
            model=network,
            example=files[:1],
            package=package,
            needs=() if config.segmentation is None or config.segmentation.backbone == "morphmlp" else ("torchvision",),
            metadata={METADATA_KEY: form_text(facts, "pyfunc")},
        )
        exported, differences, largest = load_path_model(place / FILES["pyfunc"]), dict[str, float](), 0.0
        assert isinstance(exported, made_by)
        here = made_by(config, weights, class_names)
        for count in BATCH_SIZES:
            pairs = [(_logits(here, path), _logits(exported, path)) for path in files[:count]]
            differences[f"{count} files"] = float(max(np.abs(right - found).max() for right, found in pairs))
            largest = max(largest, *(float(np.abs(right).max()) for right, _ in pairs))
        (place / FILES["pyfunc"]).rename(folder / FILES["pyfunc"])
    return Parity(differences=differences, largest_logit=largest)


def _require_space(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """MLflow copies all that it is given, and reports a disk that gets full meanwhile in errors of many kinds."""
    needed = 2 * (sum(value.nbytes for value in weights.values()) + _PACKAGE_BYTES)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _logits(model: PathModel, path: str) -> np.ndarray:
    logits = model.view_logits(path)
    if isinstance(logits, str):
        raise ExportError(f"--to pyfunc: a seeded file can't be read: {logits}")
    return logits


def _seeded_files(folder: Path, config: ExperimentConfig) -> list[str]:
    """Noise, as PNGs or as videos that lose nothing."""
    edge, count = config.test_clip.short_edge, max(BATCH_SIZES)
    if config.clip.num_frames == 1:
        paths = [folder / f"{number}.png" for number in range(count)]
        for path, pixels in zip(paths, seeded_pixels(count, size=(edge, edge)), strict=True):
            Image.fromarray(pixels).save(path)
        return list(map(str, paths))
    paths = [folder / f"{number}.mkv" for number in range(count)]
    for path, frames in zip(paths, seeded_pixels(count, size=(_VIDEO_FRAMES, edge, edge)), strict=True):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=30)
            stream.height, stream.width, stream.pix_fmt = edge, edge, "bgr0"
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")))
            container.mux(stream.encode())
    return list(map(str, paths))
