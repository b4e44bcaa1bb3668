"""A trained classification network outside of a run: videos in, names and probabilities out.

Videos are decoded, cut into views and scored as the test does it, by the same code; one after the other, in this
process.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.loading import config_to_yaml
from morphmlp.data.datasets.class_list import output_names
from morphmlp.data.decoding.isolation.isolated import Limits
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
    """Write what `saved_model` reads into an empty folder."""
    (folder / _EXPERIMENT).write_text(config_to_yaml(config), encoding="utf-8")
    (folder / _CLASSES).write_text(json.dumps(list(class_names)), encoding="utf-8")
    save_file({name: tensor.contiguous().cpu() for name, tensor in weights.items()}, folder / _WEIGHTS)


def saved_model(folder: Path) -> tuple[ExperimentConfig, dict[str, Tensor], list[str]]:
    """Experiment, weights and class names that `save_model` wrote."""
    names = json.loads((folder / _CLASSES).read_text(encoding="utf-8"))
    return load_config(folder / _EXPERIMENT), load_file(folder / _WEIGHTS), names


class VideoModel:
    """A network with everything that its test does to a video."""

    gives_maps: ClassVar[bool] = False
    """Whether its answers have label maps."""

    def __init__(
        self,
        config: ExperimentConfig,
        weights: Mapping[str, Tensor],
        class_names: Sequence[str],
        *,
        limits: Limits | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Build the network on a device, by default on the GPU where there is one.

        `limits` is what decoding one video may take; None: what it may in a run.
        """
        self.config, self.task = config, task_of(config)
        self._extractor = self.task.test_clips()
        ingest = config.ingest
        self.policy = DecodePolicy(
            decoder=ingest.decoder,
            retry_with=ingest.retry_with,
            limits=limits or decode_limits(ingest),
            image_decoder=ingest.image_decoder,
        )
        self._decode = DecodeTask(extractor=self._extractor, policy=self.policy)
        self.names = output_names(class_names, config.model.num_classes)
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = self.task.network()
        self.network.load_state_dict(weights)
        self.network.fit_to(self.device).eval()
        self._score: Callable[[Tensor], npt.NDArray[np.float32]] = self._scored_here

    def for_thread(self, number: int, score: Callable[[Tensor], npt.NDArray[np.float32]]) -> Self:
        """The same network for one of several threads, which decodes by a process of its own.

        `score` gives the logits of clips in the place of `clip_logits`, as where several threads' clips go through the
        network together.
        """
        other = copy(self)
        other.policy = replace(self.policy, number=number)
        other._decode = replace(self._decode, policy=other.policy)
        other._score = score
        return other

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model that `save_model` wrote."""
        return cls(*saved_model(Path(folder)))

    def predict(self, paths: Sequence[str]) -> list[Answer]:
        """An answer for each video, or image, in this order; one that can't be used has the reason."""
        return [self._answer(path) for path in paths]

    def view_logits(self, path: str) -> npt.NDArray[np.float32] | str:
        """Logits `[views classes]` of a video, or why it can't be used."""
        video = manifest_from_rows(
            video_ids=[path], paths=[path], labels=[0], splits=["test"], sizes_bytes=[None], class_names=self.names
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
        logits: npt.NDArray[np.float32] = self.clip_logits(clips.view(-1, shape.clips_per_video, *clips.shape[1:]))[0]
        return logits

    def clip_logits(self, clips: Tensor) -> npt.NDArray[np.float32]:
        """Logits `[n views classes]` of the views of n videos, or of parts of one, uint8 `[n views t h w c]`."""
        return self._score(clips)

    def _scored_here(self, clips: Tensor) -> npt.NDArray[np.float32]:
        outcomes = self.task.outcomes(self.network, clips, None, self.device)
        return np.stack([np.frombuffer(outcome, np.float32).reshape(clips.shape[1], -1) for outcome in outcomes])

    def _answer(self, path: str) -> Answer:
        logits = self.view_logits(path)
        if isinstance(logits, str):
            return Answer(names=(), probabilities=(), error=logits)
        shares = probabilities(logits)
        best = most_probable(shares, TOP)
        return Answer(
            names=tuple(self.names[label] for label in best),
            probabilities=tuple(float(shares[label]) for label in best),
        )


def probabilities(view_logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The probability of each class, by the logits `[views classes]` of a video: the softmax of their mean."""
    shares: npt.NDArray[np.float64] = torch.from_numpy(view_logits.mean(axis=0)).double().softmax(0).numpy()
    return shares


def most_probable(shares: npt.NDArray[np.float64], count: int) -> list[int]:
    """So many classes, the most probable one first."""
    best: list[int] = torch.from_numpy(shares).topk(min(count, len(shares))).indices.tolist()
    return best
