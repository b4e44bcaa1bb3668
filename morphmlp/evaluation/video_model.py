"""A trained classification network outside of a run: videos in, names and probabilities out.

Videos are decoded, cut into views and scored as the test does it, by the same code; one after the other, in this
process.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.loading import config_to_yaml
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.stream.batches import ClipShape, stored_clips
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, decode_limits, request_table
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.tasks.factory import task_of

TOP = 5
"""Classes that a video's answer names."""
_EXPERIMENT, _CLASSES, _WEIGHTS = "experiment.yaml", "classes.json", "weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the network says of a video."""

    names: tuple[str, ...]
    """The most probable classes, the first one first; none where the video can't be used."""
    probabilities: tuple[float, ...]
    """Theirs: the softmax of the mean of the views' logits."""
    error: str = ""
    """Why the video can't be used."""


def save_model(
    folder: Path, config: ExperimentConfig, weights: Mapping[str, Tensor], class_names: Sequence[str]
) -> None:
    """Write what `VideoModel.load` reads into an empty folder."""
    (folder / _EXPERIMENT).write_text(config_to_yaml(config), encoding="utf-8")
    (folder / _CLASSES).write_text(json.dumps(list(class_names)), encoding="utf-8")
    save_file({name: tensor.contiguous().cpu() for name, tensor in weights.items()}, folder / _WEIGHTS)


class VideoModel:
    """A network with everything that its test does to a video."""

    def __init__(self, config: ExperimentConfig, weights: Mapping[str, Tensor], class_names: Sequence[str]) -> None:
        self._task = task_of(config)
        self._extractor = self._task.test_clips()
        ingest = config.ingest
        policy = DecodePolicy(
            decoder=ingest.decoder,
            retry_with=ingest.retry_with,
            limits=decode_limits(ingest),
            image_decoder=ingest.image_decoder,
        )
        self._decode = DecodeTask(extractor=self._extractor, policy=policy)
        # A head may have more classes than there are names for.
        self._names = [*class_names, *map(str, range(len(class_names), config.model.num_classes))]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = self._task.network()
        self._network.load_state_dict(weights)
        self._network.to(self._device).eval()

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model that `save_model` wrote."""
        folder = Path(folder)
        names = json.loads((folder / _CLASSES).read_text(encoding="utf-8"))
        return cls(load_config(folder / _EXPERIMENT), load_file(folder / _WEIGHTS), names)

    def predict(self, paths: Sequence[str]) -> list[Answer]:
        """An answer for each video, or image, in this order; one that can't be used has the reason."""
        return [self._answer(path) for path in paths]

    def view_logits(self, path: str) -> npt.NDArray[np.float32] | str:
        """Logits `[views classes]` of a video, or why it can't be used."""
        video = manifest_from_rows(
            video_ids=[path], paths=[path], labels=[0], splits=["test"], sizes_bytes=[None], class_names=self._names
        )
        plan = MicroBatchPlan(epoch=0, step=0, index=0, rows=np.zeros(1, np.int64))
        threads = torch.get_num_threads()
        try:
            decoded = self._decode(request_table(video, [plan]))
        finally:
            torch.set_num_threads(threads)  # a decode task takes one
        if decoded["error"][0].as_py():
            return str(decoded["message"][0].as_py())
        shape = ClipShape.of(self._extractor)
        clips, _ = stored_clips(decoded, shape)
        by_video = clips.view(-1, shape.clips_per_video, *clips.shape[1:])
        (outcome,) = self._task.outcomes(self._network, by_video, None, self._device)
        return np.frombuffer(outcome, np.float32).reshape(shape.clips_per_video, -1)

    def _answer(self, path: str) -> Answer:
        logits = self.view_logits(path)
        if isinstance(logits, str):
            return Answer(names=(), probabilities=(), error=logits)
        shares = torch.from_numpy(logits.mean(axis=0)).double().softmax(0)
        best = shares.topk(min(TOP, len(shares)))
        names = tuple(self._names[place] for place in best.indices.tolist())
        return Answer(names=names, probabilities=tuple(best.values.tolist()))
