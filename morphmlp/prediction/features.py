"""Features of a video's windows: what a stage of a network, its pooled end or its head gives, and the files of it.

Of each video `<folder>/<video id>.npy` holds float32 `[windows channels]`, as code for temporal action detection reads
it; or `<video id>.parquet` has the same with the windows' times. An image has one window.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from einops import reduce
from jaxtyping import Float, UInt8
from pydantic import JsonValue
from torch import Tensor

from morphmlp.data.clips.sampling import DenseWindow
from morphmlp.data.datasets.video_folder import require_text, without_extension
from morphmlp.data.decoding.isolation.isolated import IsolatedReader
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.data.decoding.stored_frames.image_bytes import IMAGE_CELLS, StoredImage
from morphmlp.data.decoding.stored_frames.stills import FRAMES_PER_SECOND
from morphmlp.data.manifest import Manifest, manifest_from_rows, read_manifest
from morphmlp.errors import ConfigError, ManifestError
from morphmlp.evaluation.scene_model import SegmentationModel
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.files import FilePath, atomic_write
from morphmlp.models import MorphMLP
from morphmlp.models.segmentation.network import SegmentationNetwork
from morphmlp.prediction.inputs import each_path
from morphmlp.prediction.sliding import Sliding, window_clips
from morphmlp.tasks.task import network_input

Stage = Literal["1", "2", "3", "4", "pooled", "logits"]
"""The map at the end of a stage, averaged over all its tokens; `pooled`: what the head gets; `logits`.

Of a network that segments, `pooled` is the last map as the decoder gets it, and both are averaged over the image.
"""
SOURCE_CELLS = ("video_id", "path", "num_frames", "crc32", *IMAGE_CELLS)
"""What is read of a manifest's row, where it has it."""
Form = Literal["npy", "parquet"]
_CLIPS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class FeatureFiles:
    """The files of one extraction."""

    folder: Path

    index = FilePath("{folder}/features.parquet")
    """One row per video, in the manifest's order: its file, its windows and their times, or why it has none."""
    settings = FilePath("{folder}/features.json")
    """What the features are of."""
    log = FilePath("{folder}/features.log.txt")
    """What the command said, with the time."""
    work = FilePath("{folder}/.features.work")
    """Results of an extraction that isn't through."""

    def of(self, video_id: str, form: Form) -> Path:
        """Where a video's features lie."""
        return self.folder / f"{video_id}.{form}"

    def claim(self, settings: Mapping[str, JsonValue]) -> None:
        """Mark the folder as that of these features.

        Raises:
            ConfigError: It holds features of something else, or can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.settings.exists():
                there = json.loads(self.settings.read_text(encoding="utf-8"))
                names = sorted({*there, *settings})
                if others := [name for name in names if there.get(name) != settings.get(name)]:
                    words = "; ".join(f"{name} {there.get(name)}, not {settings.get(name)}" for name in others)
                    raise ConfigError(
                        [f"--output: {self.folder}: holds features of something else: {words}; name another folder"]
                    )
            atomic_write(self.settings, json.dumps(settings, indent=1) + "\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "features.json is damaged"
            raise ConfigError([f"--output: {self.folder}: {reason}; name another folder"]) from None


@dataclass(frozen=True, kw_only=True)
class WindowFeatures:
    """The features of one video's windows."""

    info: VideoInfo
    window: DenseWindow
    hop_frames: float
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    values: npt.NDArray[np.float32]
    """`[windows channels]`."""

    def content(self, form: Form) -> bytes:
        """As a file has it: always the same bytes for the same features."""
        written = BytesIO()
        if form == "npy":
            np.save(written, self.values, allow_pickle=False)
        else:
            width = self.values.shape[1]
            features = pa.FixedSizeListArray.from_arrays(pa.array(self.values.ravel()), width)
            columns = {"start_s": pa.array(self.start_s), "end_s": pa.array(self.end_s), "feature": features}
            said = {"fps": repr(self.info.fps), "hop_frames": repr(self.hop_frames)}
            pq.write_table(pa.table(columns).replace_schema_metadata(said), written)
        return written.getvalue()

    def facts(self) -> dict[str, object]:
        """What the index says of them."""
        return {
            "num_windows": len(self.values),
            "channels": self.values.shape[1],
            "fps": self.info.fps,
            "num_frames": self.info.num_frames,
            "duration_s": self.info.pts_s[-1] - self.info.pts_s[0] + 1 / self.info.fps,
            "window_frames": self.window.span,
            "hop_frames": self.hop_frames,
            "start_s": self.start_s,
            "end_s": self.end_s,
        }


def features_of(model: VideoModel, reader: IsolatedReader, windows: Sliding, stage: Stage) -> WindowFeatures:
    """The features of an open video, a part of it in memory at a time.

    Raises:
        DecodeError: The video can't be used.
    """
    info = reader.info
    window, _ = windows.of(info)
    starts: list[float] = []
    parts = []
    for group, clips in window_clips(reader, windows, model.config.test):
        starts.extend(group)
        parts.append(clip_features(model, clips, stage))
    times = windows.times(info, starts)
    return WindowFeatures(
        info=info,
        window=window,
        hop_frames=windows.hop.frames(info.fps),
        start_s=tuple(start for start, _ in times),
        end_s=tuple(end for _, end in times),
        values=np.concatenate(parts),
    )


def source_of(video: Mapping[str, Any]) -> OpenVideo:
    """The video or image of a manifest's row."""
    return OpenVideo(
        path=video["path"],
        num_frames=video.get("num_frames"),
        crc32=video.get("crc32"),
        image=StoredImage.of(video),
    )


@torch.inference_mode()
def scene_features(model: SegmentationModel, source: OpenVideo, windows: Sliding, stage: Stage) -> WindowFeatures:
    """The features of an image by a network that segments, fp32: the mean over the windows that it sees of it.

    Raises:
        DecodeError: The image can't be used.
    """
    image, network = model.image(source), model.network
    found = []
    for _, inputs in model.windows(image):
        if stage == "logits":
            one = network(inputs)
        elif stage == "pooled":
            one = cast(SegmentationNetwork, network).forward_maps(inputs)[-1]
        else:
            one = network.forward_features(inputs)[int(stage) - 1]
        found.append(reduce(one.float(), "1 c h w -> c", "mean").cpu())
    height, width = image.shape[:2]
    info = VideoInfo(
        num_frames=1, fps=FRAMES_PER_SECOND, pts_s=(0.0,), width=width, height=height, codec=Path(source.path).suffix
    )
    window, starts = windows.of(info)
    ((start_s, end_s),) = windows.times(info, starts)
    return WindowFeatures(
        info=info,
        window=window,
        hop_frames=windows.hop.frames(info.fps),
        start_s=(start_s,),
        end_s=(end_s,),
        values=torch.stack(found).mean(dim=0, keepdim=True).numpy(),
    )


@torch.inference_mode()
def clip_features(
    model: VideoModel, clips: UInt8[Tensor, "n v t h w c"], stage: Stage
) -> Float[np.ndarray, "n channels"]:
    """Features of each window, fp32: the mean over its crops."""
    network = model.network
    assert isinstance(network, MorphMLP)
    parts = []
    for part in torch.split(clips.flatten(0, 1), _CLIPS_AT_ONCE):
        maps = network.forward_features(network_input(part, network, model.device))
        if stage == "logits":
            found = network.forward_head(maps[-1])
        elif stage == "pooled":
            found = network.forward_head(maps[-1], pre_logits=True)
        else:
            found = reduce(maps[int(stage) - 1], "b c ... -> b c", "mean")
        parts.append(found.float().cpu())
    values: npt.NDArray[np.float32] = reduce(torch.cat(parts), "(n v) c -> n c", "mean", v=clips.shape[1]).numpy()
    return values


def videos_to_extract(source: Path, *, images: bool = False) -> Manifest:
    """The videos of a manifest, or of a folder, whose ids are then their paths from there without the extension.

    With `images` a folder's images too.

    Raises:
        ManifestError: There are none, or an id can't name a file.
    """
    manifest = _of_folder(source, images=images) if source.is_dir() else read_manifest(source).available()
    for name in manifest.table["video_id"].to_pylist():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ManifestError(f"{source}: video {name}: its id leads out of a folder, so it can't name a file")
    return manifest


def _of_folder(folder: Path, *, images: bool) -> Manifest:
    root = folder.absolute()
    found = []
    for path, fault in each_path([str(root)], BytesIO(), images=images):
        if fault:
            raise ManifestError(f"{folder}: {fault}")
        require_text(path, "MANIFEST|DIR")
        found.append(path)
    # The folder itself may be a video, whose frames are stored one by one.
    names = [root.name if Path(path) == root else Path(path).relative_to(root).as_posix() for path in found]
    stems = [without_extension(name)[0] for name in names]
    # Of a.mp4 and a.mkv neither may take the other's place.
    counts = Counter(stems)
    ids = [name if counts[stem] > 1 else stem for name, stem in zip(names, stems, strict=True)]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return manifest_from_rows(
        video_ids=[ids[place] for place in order],
        paths=[found[place] for place in order],
        labels=[0] * len(ids),
        splits=["test"] * len(ids),
        sizes_bytes=[0] * len(ids),
        class_names=["unknown"],
    )
