"""The file of an explanation: a video with every frame, a short animation, or one picture."""

from difflib import get_close_matches
from pathlib import Path

import numpy as np
from PIL import Image

from morphmlp.config.shapes import NUM_STAGES
from morphmlp.data.decoding.isolation.isolated import IsolatedReader
from morphmlp.data.decoding.sources import is_image
from morphmlp.errors import ConfigError
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.prediction.explanation.explained import Explanation, Subject, explain
from morphmlp.prediction.explanation.pictures import Explainer, sheet, sheet_places
from morphmlp.prediction.inputs import as_text
from morphmlp.prediction.places import Places
from morphmlp.prediction.predict import Prediction, with_each_decoder
from morphmlp.prediction.sliding import Sliding
from morphmlp.prediction.video_writing import timed_frames, write_video
from morphmlp.progress import Progress

OPTION = "--explain"
VIDEO_ENDINGS = (".mp4", ".gif", ".png")
_GIF_FPS, _GIF_FRAMES, _GIF_WIDTH = 10, 120, 480
"""A GIF has at most so many frames, a second and in all, and columns."""
_LONGEST_MS = 500
"""For which a GIF shows one frame at most: one of a long video runs faster than that."""


def class_named(text: str, names: tuple[str, ...]) -> int:
    """The class that a user means by a name, or by a number from 0.

    Raises:
        ConfigError: There is no such class.
    """
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    close = get_close_matches(text, names, n=1)
    meant = (
        f"did you mean {close[0]!r}?"
        if close
        else f"the network knows {len(names)}, from {names[0]!r} to {names[-1]!r}"
    )
    raise ConfigError([f"--explain-class: {text!r} is no class and no number below {len(names)}; {meant}"])


def write_explanation(
    model: VideoModel,
    prediction: Prediction,
    places: Places,
    *,
    windows: Sliding | None,
    stage: int = NUM_STAGES,
    label: int | None,
    progress: Progress,
) -> Path:
    """Write why a network says what it says of a file, by default of its top guess; returns where.

    Raises:
        DecodeError: It can't be read any more.
        ConfigError: The place can't be written to.
    """
    label = prediction.guesses[0].label if label is None else label
    subject = Subject(label=label, name=model.names[label], stage=stage)

    def write(reader: IsolatedReader) -> None:
        clips = len(windows.of(reader.info)[1]) if windows else model.config.test.num_clips
        progress.phase(f"explaining {place.name}", total=clips, unit="clips")
        explanation = explain(model, reader, windows, subject, on_progress=progress.update)
        ending = ".png" if image else place.suffix.lower()
        with places.written(place) as unfinished:
            if ending == ".mp4":
                progress.phase(f"writing {place.name}", total=reader.info.num_frames, unit="frames")
            _write(unfinished, reader, explanation, ending=ending, image=image, progress=progress)

    with as_text(prediction.path) as name:
        image = is_image(name)
        place = places.place_for(prediction.path, image=image)
        with_each_decoder(model, name, write)
    return place


def _write(
    path: Path, reader: IsolatedReader, explanation: Explanation, *, ending: str, image: bool, progress: Progress
) -> None:
    if image:
        frame = reader.read([0]).frames[0]
        Explainer(explanation).draw(frame, 0, 0.0).save(path, format="png")
    elif ending == ".png":
        chosen = sheet_places(explanation)
        frames = np.stack([frame for frame, _, _ in timed_frames(reader, chosen)])
        sheet(explanation, frames, chosen).save(path, format="png")
    elif ending == ".gif":
        _write_gif(path, reader, explanation)
    else:
        explainer = Explainer(explanation)
        write_video(path, reader, explainer.size, explainer.draw, progress=progress)


def _write_gif(path: Path, reader: IsolatedReader, explanation: Explanation) -> None:
    info = reader.info
    length_s = info.pts_s[-1] - info.pts_s[0] + 1 / info.fps
    count = min(max(round(length_s * _GIF_FPS), 1), info.num_frames, _GIF_FRAMES)
    chosen = np.unique(np.linspace(0, info.num_frames - 1, count).round().astype(int)).tolist()
    explainer = Explainer(explanation)
    factor = min(_GIF_WIDTH / explainer.size[0], 1.0)
    size = round(explainer.size[0] * factor), round(explainer.size[1] * factor)
    pictures = [
        explainer.draw(frame, place, time_s).resize(size).quantize(dither=Image.Dither.NONE)
        for frame, place, time_s in timed_frames(reader, chosen)
    ]
    shown_ms = min(max(round(1000 * length_s / len(pictures)), 20), _LONGEST_MS)
    pictures[0].save(path, format="gif", save_all=True, append_images=pictures[1:], duration=shown_ms, loop=0)
