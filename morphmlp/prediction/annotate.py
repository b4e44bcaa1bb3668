"""A prediction as a picture or a video: the file again with its names, and a timeline below where there are windows."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL.Image import Image

from morphmlp.data.datasets.video_folder import is_text, without_extension
from morphmlp.data.decoding.isolation.isolated import IsolatedReader
from morphmlp.data.decoding.protocol import Frames, VideoInfo
from morphmlp.data.decoding.sources import is_image
from morphmlp.data.decoding.stored_frames.frame_names import shown
from morphmlp.errors import ConfigError
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.files import atomic_file
from morphmlp.prediction.drawing import Annotator, labelled, picture_size
from morphmlp.prediction.inputs import STANDARD_INPUT, as_text
from morphmlp.prediction.predict import Prediction, Span, with_each_decoder
from morphmlp.targets import folder_fault, writable_folder

_OPTION = "--annotate"
_VIDEO, _IMAGE = ".mp4", ".png"
_READ_BYTES = 64 * 2**20
"""Decoded frames that are read at a time."""
_TIME_BASE = Fraction(1, 90_000)
_X264 = {"preset": "veryfast", "crf": "20"}


class Annotations:
    """Where annotated files go: to the one file that is named, or each to a file of its own in a folder."""

    def __init__(self, target: Path, inputs: tuple[str, ...], *, force: bool) -> None:
        """Refuse a place that can't be written to; with `force` files that are there are written over.

        Raises:
            ConfigError: It can't, several files would go into one, or the file is there.
        """
        self._force = force
        self._target, self._is_file = target, target.suffix.lower() in (_VIDEO, _IMAGE) and not target.is_dir()
        self._taken: set[str] = set()
        if not is_text(str(target)):
            raise ConfigError([f"{_OPTION}: {shown(str(target))}: isn't UTF-8 text; name another place"])
        if not self._is_file:
            writable_folder(target, _OPTION)
            return
        if target.exists() and not target.is_file():
            raise ConfigError([f"{_OPTION}: {target}: is no regular file; name a file that ends in {_VIDEO}"])
        if fault := folder_fault(target.parent):
            raise ConfigError([f"{_OPTION}: {target}: {fault}; name another file"])
        if len(inputs) > 1 or inputs[0] == STANDARD_INPUT or Path(inputs[0]).is_dir():
            raise ConfigError([f"{_OPTION}: {target}: is one file for several inputs; name a folder"])
        self._require_free(target, inputs[0])

    def place_for(self, path: str, *, image: bool) -> Path:
        """Where the annotated form of a file goes.

        Raises:
            ConfigError: It would be of another kind than the file's name says, or replace a file.
        """
        ending = _IMAGE if image else _VIDEO
        if self._is_file:
            place = self._target
            if place.suffix.lower() != ending:
                raise ConfigError([f"{_OPTION}: {place}: {'an image' if image else 'a video'} is written as {ending}"])
        else:
            stem, number = shown(without_extension(Path(path).name)[0]), 1  # FFmpeg takes names in UTF-8 alone
            name = stem
            while name in self._taken:
                number += 1
                name = f"{stem}-{number}"
            self._taken.add(name)
            place = self._target / f"{name}{ending}"
        self._require_free(place, path)
        return place

    def _require_free(self, place: Path, path: str) -> None:
        if not place.exists():
            return
        if Path(path).exists() and place.samefile(path):
            raise ConfigError([f"{_OPTION}: {place}: is the file that is looked at; name another one"])
        if not self._force:
            raise ConfigError([f"{_OPTION}: {place}: exists already; --force writes over it"])


def annotate(model: VideoModel, prediction: Prediction, places: Annotations) -> Path:
    """Write a file again with what was predicted of it; returns where.

    Raises:
        DecodeError: It can't be read any more.
        ConfigError: The place can't be written to.
    """
    with as_text(prediction.path) as name:
        if is_image(name):
            picture = with_each_decoder(model, name, lambda reader: reader.read([0]).frames[0])
            return save_picture(labelled(picture, prediction.guesses), prediction.path, places)
        place = places.place_for(prediction.path, image=False)
        with _written(place) as unfinished:
            with_each_decoder(model, name, lambda reader: _write_video(reader, prediction, unfinished))
    return place


def save_picture(picture: Image, path: str, places: Annotations) -> Path:
    """Write the annotated form of an image; returns where.

    Raises:
        ConfigError: The place can't be written to.
    """
    place = places.place_for(path, image=True)
    with _written(place) as unfinished:
        picture.save(unfinished, format="png")
    return place


@contextmanager
def _written(place: Path) -> Iterator[Path]:
    """A path to write to that takes its name at the end.

    Raises:
        ConfigError: It can't be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(place) as unfinished:
            unfinished.touch()
            yield unfinished
    except OSError as error:  # FFmpeg's errors are among them
        raise ConfigError([f"{_OPTION}: {place}: can't be written: {error.strerror or error}"]) from None


def _write_video(reader: IsolatedReader, prediction: Prediction, path: Path) -> None:
    info = reader.info
    width, height = picture_size(info.width, info.height)
    length_s = info.pts_s[-1] - info.pts_s[0] + 1 / info.fps
    spans = prediction.spans or (Span(start_s=0.0, end_s=length_s, guesses=prediction.guesses),)
    annotator = Annotator(spans, width=width, height=height, length_s=length_s)
    with av.open(str(path), "w", format="mp4") as container:
        stream = _stream(container, info, annotator.size)
        last = -1
        for frame, time_s in _frames(reader):
            picture = VideoFrame.from_ndarray(np.asarray(annotator.draw(frame, time_s)), format="rgb24")
            last = max(round(time_s / _TIME_BASE), last + 1)
            picture.pts, picture.time_base = last, _TIME_BASE
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _stream(container: av.container.OutputContainer, info: VideoInfo, size: tuple[int, int]) -> VideoStream:
    # Only a hint: every frame has its time.
    rate = max(Fraction(info.fps).limit_denominator(1001), Fraction(1, 1001))
    stream = container.add_stream("libx264", rate=rate, options=_X264)
    context = stream.codec_context
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base = stream.time_base = _TIME_BASE
    return stream


def _frames(reader: IsolatedReader) -> Iterator[tuple[Frames, float]]:
    """Every frame with its time, seconds from the first one."""
    info = reader.info
    at_once = max(_READ_BYTES // (info.height * info.width * 3), 1)
    for start in range(0, info.num_frames, at_once):
        indices = range(start, min(start + at_once, info.num_frames))
        for index, frame in zip(indices, reader.read(indices).frames, strict=True):
            yield frame, info.pts_s[index] - info.pts_s[0]
