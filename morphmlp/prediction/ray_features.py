"""Features of a data set over the cluster: resumable, in the manifest's order, and past every broken video."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from pydantic import JsonValue
from torch import Tensor

from morphmlp.config import ExperimentConfig
from morphmlp.config.clip import ClipConfig
from morphmlp.config.loading import fingerprint
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.data.manifest import Manifest
from morphmlp.errors import ManifestError
from morphmlp.evaluation.scene_model import SegmentationModel
from morphmlp.evaluation.score_header import weights_sha256
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.files import atomic_file
from morphmlp.prediction.features import (
    SOURCE_CELLS,
    FeatureFiles,
    Form,
    Stage,
    WindowFeatures,
    features_of,
    scene_features,
    source_of,
)
from morphmlp.prediction.predict import with_each_decoder
from morphmlp.prediction.sliding import Sliding
from morphmlp.prediction.trained import TrainedNetwork, patient_limits
from morphmlp.preparation.ray_jobs import TaskResources, do_with_every_video
from morphmlp.preparation.work_folder import RESULT, WorkFolder
from morphmlp.progress import Progress

EXTRACTED = pa.schema(
    [
        *RESULT,
        pa.field("num_windows", pa.int32()),
        pa.field("channels", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("num_frames", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("window_frames", pa.float64()),
        pa.field("hop_frames", pa.float64()),
        pa.field("start_s", pa.list_(pa.float64())),
        pa.field("end_s", pa.list_(pa.float64())),
    ]
)
"""One row per video: its file as it was, why it has no features (`error`, `message`) or where these are (`output`), and
the windows. `window_frames` and `hop_frames` count the video's own frames, times begin with its first one."""
_TASK_MEMORY_BYTES = 2 * 2**30
"""A process with torch and the network, the frames of some windows, and the decoder's process."""
_GPU_TASKS = 4
"""Tasks that share a GPU by default: each decodes in one thread, which fills a GPU's time in part only."""


@dataclass(frozen=True, kw_only=True)
class FeatureTask:
    """Writes the features of one video."""

    config: ExperimentConfig
    weights: "ray.ObjectRef[Mapping[str, Tensor]]"
    weights_sha256: str
    windows: Sliding
    stage: Stage
    form: Form
    folder: Path
    device: str

    schema = EXTRACTED

    def __call__(self, video: Mapping[str, object]) -> dict[str, object]:
        """The file and what the index says of it; for what is raised see `VideoTask`."""
        found = self._found(source_of(video))
        place = FeatureFiles(folder=self.folder).of(str(video["video_id"]), self.form)
        content = found.content(self.form)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place) as unfinished:
                unfinished.write_bytes(content)
        except OSError as error:  # no video's fault: the next one couldn't be written either
            raise ManifestError(f"{place}: can't be written: {error.strerror or error}") from None
        return {"output": str(place), "output_bytes": len(content), **found.facts()}

    def _found(self, source: OpenVideo) -> WindowFeatures:
        model = self._model()
        if isinstance(model, SegmentationModel):
            return scene_features(model, source, self.windows, self.stage)
        return with_each_decoder(model, source, lambda reader: features_of(model, reader, self.windows, self.stage))

    def _model(self) -> VideoModel | SegmentationModel:
        """This process's network, built once: processes do task after task."""
        key = (self.weights_sha256, fingerprint(self.config), self.device)
        if key not in _models:
            if self.device == "cpu":
                torch.set_num_threads(1)  # a task has one CPU
            _models.clear()
            made_by: type[VideoModel | SegmentationModel]
            made_by = VideoModel if self.config.segmentation is None else SegmentationModel
            _models[key] = made_by(
                self.config,
                ray.get(self.weights),
                (),
                limits=patient_limits(self.config),
                device=torch.device(self.device),
            )
        return _models[key]


_models: dict[tuple[str, str, str], VideoModel | SegmentationModel] = {}


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Features that are to be written: what needs no cluster to be known is checked."""

    source: Path
    videos: Manifest
    trained: TrainedNetwork
    windows: Sliding
    stage: Stage
    form: Form
    files: FeatureFiles
    gpu_tasks: int = _GPU_TASKS

    def settings(self) -> dict[str, JsonValue]:
        """What the features depend on."""
        config = self.trained.config
        return {
            "checkpoint": self.trained.location,
            "weights_sha256": weights_sha256(self.trained.weights),
            "experiment": config.name,
            "stage": self.stage,
            "format": self.form,
            "num_frames": self.windows.clip.num_frames,
            "frame_stride": self.windows.clip.frame_stride,
            "sampling": self.windows.clip.sampling,
            "hop": str(self.windows.hop),
            "crops": _crops_in_words(config, self.windows.clip),
            "decoder": config.ingest.decoder,
        }

    @property
    def items(self) -> str:
        """What files of features are of."""
        return "files" if self.windows.clip.num_frames == 1 else "videos"


def extract_features(job: Extraction, *, progress: Progress) -> str:
    """Write the features of every video in the running Ray session; returns what to say of them.

    The folder must be claimed for them.

    Raises:
        ManifestError: Not one video has features, or they can't be written.
    """
    settings, files = job.settings(), job.files
    gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    device = "cuda" if gpus else "cpu"
    task = FeatureTask(
        config=job.trained.config,
        weights=ray.put(dict(job.trained.weights)),
        weights_sha256=str(settings["weights_sha256"]),
        windows=job.windows,
        stage=job.stage,
        form=job.form,
        folder=files.folder.absolute(),
        device=device,
    )
    resources = TaskResources(memory_bytes=_TASK_MEMORY_BYTES, num_gpus=1 / job.gpu_tasks if gpus else 0.0)
    work = WorkFolder(files.work, table=files.index, schema=EXTRACTED, settings=settings)
    began = time.monotonic()
    with work.opened():
        found = do_with_every_video(
            job.videos.table.select([name for name in SOURCE_CELLS if name in job.videos.table.column_names]),
            task,
            work,
            title="features",
            progress=progress,
            resources=resources,
        )
        broken = found.filter(pc.not_equal(found["error"], ""))
        if broken.num_rows == found.num_rows:
            raise ManifestError(
                f"{job.source}: not one of its {found.num_rows} {job.items} can be used: "
                f"{_reason(broken.to_pylist()[0])}"
            )
        work.close(found)
    return _in_words(job, found, broken, wall_s=time.monotonic() - began)


def _in_words(job: Extraction, found: pa.Table, broken: pa.Table, *, wall_s: float) -> str:
    count = pc.sum(found["num_windows"]).as_py()
    channels = pc.max(found["channels"]).as_py()
    lines = [
        f"{job.files.folder}: {count:,} windows of {job.windows.in_words} with {channels} channels ({job.stage}), of "
        f"{found.num_rows - broken.num_rows:,} {job.items}, {wall_s:.0f} s",
        *(f"no features: {_reason(row)}" for row in broken.slice(0, 10).to_pylist()),
    ]
    if broken.num_rows > 10:
        lines.append(f"no features: and {broken.num_rows - 10} more, see {job.files.index}")
    return "\n".join(lines)


def _crops_in_words(config: ExperimentConfig, clip: ClipConfig) -> str:
    """What the network sees of each frame."""
    segmentation = config.segmentation
    if segmentation is None:
        return f"{config.test.num_crops} of {clip.crop_size} px from {clip.short_edge} px"
    stride = segmentation.test.stride
    seen = "whole image" if stride is None else f"windows of {clip.crop_size} px every {stride} px"
    return f"{seen} from {clip.short_edge} x {segmentation.long_edge} px"


def _reason(row: Mapping[str, object]) -> str:
    return f"{row['video_id']} ({row['path']}): {row['message']}"
