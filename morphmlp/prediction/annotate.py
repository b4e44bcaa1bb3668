"""A prediction as a picture or a video: the file again with its names, and a timeline below where there are windows."""

from pathlib import Path

from PIL.Image import Image

from morphmlp.data.decoding.isolation.isolated import IsolatedReader
from morphmlp.data.decoding.sources import is_image
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.prediction.drawing import Annotator, labelled, picture_size
from morphmlp.prediction.inputs import as_text
from morphmlp.prediction.places import Places
from morphmlp.prediction.predict import Prediction, Span, with_each_decoder
from morphmlp.prediction.video_writing import write_video
from morphmlp.progress import Progress


def annotate(model: VideoModel, prediction: Prediction, places: Places, *, progress: Progress) -> Path:
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

        def write(reader: IsolatedReader) -> None:
            progress.phase(f"writing {place.name}", total=reader.info.num_frames, unit="frames")
            _write_annotated(reader, prediction, unfinished, progress)

        with places.written(place) as unfinished:
            with_each_decoder(model, name, write)
    return place


def save_picture(picture: Image, path: str, places: Places) -> Path:
    """Write the annotated form of an image; returns where.

    Raises:
        ConfigError: The place can't be written to.
    """
    place = places.place_for(path, image=True)
    with places.written(place) as unfinished:
        picture.save(unfinished, format="png")
    return place


def _write_annotated(reader: IsolatedReader, prediction: Prediction, path: Path, progress: Progress) -> None:
    info = reader.info
    width, height = picture_size(info.width, info.height)
    length_s = info.pts_s[-1] - info.pts_s[0] + 1 / info.fps
    spans = prediction.spans or (Span(start_s=0.0, end_s=length_s, guesses=prediction.guesses),)
    annotator = Annotator(spans, width=width, height=height, length_s=length_s)
    write_video(path, reader, annotator.size, lambda frame, _, time_s: annotator.draw(frame, time_s), progress=progress)
