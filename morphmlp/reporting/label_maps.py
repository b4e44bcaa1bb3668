"""A segmentation test's predictions as pictures of their own: one PNG for each image, named like it."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from morphmlp.data.columns import SEGMENTED
from morphmlp.errors import ConfigError
from morphmlp.files import atomic_write
from morphmlp.reporting.segmentation import palette
from morphmlp.tasks.segmentation.confusion import LabelMap, prediction_of
from morphmlp.training.record.run_folder import RunFolder

Form = Literal["submission", "classes", "palette"]
"""`submission`: class + 1 in 8 bits, as ADE20K's test server takes them and as its own label maps are. `classes`: the
class itself. `palette`: the class, with a colour for people."""
_ROWS_AT_ONCE = 64


def predictions_of(source: str, storage: Path) -> Path:
    """The file of predictions that a file, a run's folder, or its name below `storage` means.

    Raises:
        ConfigError: There is no such file or run, or the run wasn't tested yet.
    """
    if Path(source).is_file():
        return Path(source)
    folders = [place for place in (Path(source), storage / source) if RunFolder(place).experiment.is_file()]
    if not folders:
        raise ConfigError([f"{source}: neither a file of predictions nor a run's folder, nor a run under {storage}"])
    predictions = RunFolder(folders[0]).predictions
    if not predictions.is_file():
        raise ConfigError([f"{source}: the run has no predictions yet; they come with its test"])
    return predictions


def export_label_maps(
    predictions: Path, output: Path, *, form: Form, on_progress: Callable[[int, int], None] = lambda done, of: None
) -> int:
    """Write the prediction of each image of a test's table to `output`; returns how many there are.

    Names are the images' ids, whose folders are made. What is there already and is the same stays; nothing is written
    where a file would have to be replaced. `on_progress` gets how many are done, of how many.

    Raises:
        ConfigError: The table isn't that of a segmentation test, or a file is there that is another.
    """
    table = _opened(predictions)
    names = table.read(columns=["video_id"])["video_id"].to_pylist()
    places = {name: output / f"{name}.png" for name in names}
    if outside := [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]:
        raise ConfigError([f"{predictions}: image {outside[0]}: its id leads out of a folder, so it can't name a file"])
    there = {name for name, place in places.items() if place.exists()}
    encode = partial(label_map_png, form=form)
    if there:
        _refuse_others(table, places, there, encode)
    done = 0
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=["video_id", "prediction"]):
        for name, png in zip(*(batch[column].to_pylist() for column in batch.schema.names), strict=True):
            if name not in there:
                _write(places[name], encode(prediction_of(png)))
            done += 1
        on_progress(done, len(names))
    return done


def label_map_png(labels: LabelMap, *, form: Form) -> bytes:
    """A label map as a PNG of 8 bits, grey or with a palette."""
    picture = Image.fromarray(labels + np.uint8(form == "submission"))
    if form == "palette":
        picture.putpalette(palette(255).tobytes())
    encoded = BytesIO()
    picture.save(encoded, format="png")
    return encoded.getvalue()


def _opened(predictions: Path) -> pq.ParquetFile:
    try:
        table = pq.ParquetFile(predictions)
    except FileNotFoundError:
        raise ConfigError([f"{predictions}: no such file; a run has one once it was tested"]) from None
    except (pa.ArrowException, OSError) as error:
        raise ConfigError([f"{predictions}: can't be read as Parquet: {' '.join(str(error).split())}"]) from None
    if table.schema_arrow.names != SEGMENTED.names:
        raise ConfigError(
            [f"{predictions}: holds no label maps; only runs with task: segmentation have them in predictions.parquet"]
        )
    return table


def _refuse_others(
    table: pq.ParquetFile, places: dict[str, Path], there: set[str], encode: Callable[[LabelMap], bytes]
) -> None:
    others = [
        places[name]
        for batch in table.iter_batches(_ROWS_AT_ONCE, columns=["video_id", "prediction"])
        for name, png in zip(*(batch[column].to_pylist() for column in batch.schema.names), strict=True)
        if name in there and not _is(places[name], encode(prediction_of(png)))
    ]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise ConfigError(
            [f"--output: {others[0]}{more}: is there and isn't what would be written; name another folder"]
        )


def _is(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    except OSError as error:
        raise ConfigError([f"--output: {path}: can't be written: {error.strerror or error}"]) from None
