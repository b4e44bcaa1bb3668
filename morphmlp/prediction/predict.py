"""Predictions for one file: names and probabilities, of the whole or over time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from morphmlp.data.decoding.isolation.isolated import IsolatedReader
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.errors import DecodeError
from morphmlp.evaluation.video_model import VideoModel, most_probable, probabilities
from morphmlp.prediction.inputs import as_text
from morphmlp.prediction.sliding import Sliding, window_clips

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A class that a network takes for possible."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Span:
    """What a network says of a part of a video."""

    start_s: float
    end_s: float
    guesses: tuple[Guess, ...]
    """The most probable first."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network says of a file."""

    path: str
    guesses: tuple[Guess, ...]
    """Of the whole: by the mean of the logits of its views, or of its windows."""
    logits: tuple[float, ...]
    """Of each class, summed over the views as in a score store; over time the mean of all windows."""
    spans: tuple[Span, ...] = ()
    """Its windows, where they were asked for."""
    fps: float | None = None
    num_frames: int | None = None
    """Both known where it was looked at over time."""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        over_time = {
            "fps": self.fps,
            "num_frames": self.num_frames,
            "windows": [
                {"start_s": round(span.start_s, 3), "end_s": round(span.end_s, 3), "top": _plain(span.guesses)}
                for span in self.spans
            ],
        }
        content = {"path": self.path, "top": _plain(self.guesses)}
        return content | ({"logits": self.logits} if self.logits else {}) | (over_time if self.spans else {})


def predict_whole(model: VideoModel, path: str, *, top: int) -> Prediction:
    """A video, or an image, by the test's views.

    Raises:
        DecodeError: It can't be used.
    """
    with as_text(path) as name:
        found = model.view_logits(name)
    if isinstance(found, str):
        raise DecodeError(found)
    return Prediction(
        path=path,
        guesses=guesses(probabilities(found), model.names, top),
        logits=tuple(found.sum(axis=0, dtype=np.float32).tolist()),
    )


def predict_over_time(
    model: VideoModel,
    path: str,
    windows: Sliding,
    *,
    top: int,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Prediction:
    """A video by windows that slide over it; `on_progress` gets how many are done, of how many.

    Raises:
        DecodeError: It can't be used.
    """
    with as_text(path) as name:
        return with_each_decoder(
            model,
            name,
            lambda reader: _over_time(model, path, reader, windows, top=top, on_progress=on_progress),
        )


def with_each_decoder(model: VideoModel, source: str | OpenVideo, work: Callable[[IsolatedReader], _T]) -> _T:
    """Do something with an open video, by the second decoder where the first one can't.

    `source` is its path, or what a manifest says of it.

    Raises:
        DecodeError: No decoder can; the reasons of all.
    """
    if isinstance(source, str):
        source = OpenVideo(path=source, num_frames=None, crc32=None)
    reasons = []
    for decoder in model.policy.decoders():
        try:
            return work(model.policy.opener(decoder).open(**vars(source)))
        except DecodeError as error:
            reasons.append((decoder, error))
    if len(reasons) == 1:
        raise reasons[0][1]
    raise DecodeError("; ".join(f"{decoder}: {error}" for decoder, error in reasons))


def guesses(shares: npt.NDArray[np.float64], names: Sequence[str], top: int) -> tuple[Guess, ...]:
    """The most probable classes, of the probability of each."""
    return tuple(
        Guess(label=label, name=names[label], probability=float(shares[label])) for label in most_probable(shares, top)
    )


def _over_time(
    model: VideoModel,
    path: str,
    reader: IsolatedReader,
    windows: Sliding,
    *,
    top: int,
    on_progress: Callable[[int, int], None],
) -> Prediction:
    info = reader.info
    _, starts = windows.of(info)
    spans: list[Span] = []
    total = np.zeros(len(model.names), np.float64)
    on_progress(0, len(starts))
    for group, clips in window_clips(reader, windows, model.config.test):
        for (start_s, end_s), logits in zip(windows.times(info, group), model.clip_logits(clips), strict=True):
            found = guesses(probabilities(logits), model.names, top)
            spans.append(Span(start_s=start_s, end_s=end_s, guesses=found))
            total += logits.mean(axis=0)
        on_progress(len(spans), len(starts))
    mean = (total / len(starts)).astype(np.float32)
    return Prediction(
        path=path,
        guesses=guesses(probabilities(mean[None]), model.names, top),
        logits=tuple(mean.tolist()),
        spans=tuple(spans),
        fps=info.fps,
        num_frames=info.num_frames,
    )


def _plain(found: Sequence[Guess]) -> list[dict[str, Any]]:
    return [{"label": one.label, "name": one.name, "probability": one.probability} for one in found]
