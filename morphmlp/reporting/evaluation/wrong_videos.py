"""The videos that a classifier got wrong: a table of all, and pictures of those about which it was surest."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from morphmlp.data.decoding.protocol import Frames, VideoOpener
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.manifest import Manifest, read_manifest
from morphmlp.errors import DecodeError, ManifestError
from morphmlp.evaluation.rescoring import Rescored
from morphmlp.evaluation.score_header import ScoreHeader
from morphmlp.reporting.contact_sheet import SheetRow, contact_sheet

PICTURES = 6
ROWS_OF_A_SHEET = 8
_SIDE = 200
"""Longer side of a picture, pixels."""


def wrong_table(rescored: Rescored) -> pd.DataFrame:
    """The videos whose first guess is wrong, those about which it was surest first: class, place of it, five guesses.

    With the guesses' probabilities in percent.
    """
    answers = rescored.answers
    rows = np.flatnonzero(~answers.right)
    rows = rows[np.argsort(-answers.shares[rows, 0], kind="stable")]
    names = np.asarray(rescored.class_names, dtype=object)
    table = {
        "video_id": rescored.video_ids.take(rows).to_pylist(),
        "class": names[answers.labels[rows]],
        "place": answers.ranks[rows] + 1,
    }
    for place in range(answers.guesses.shape[1]):
        table[f"guess_{place + 1}"] = names[answers.guesses[rows, place]]
        table[f"percent_{place + 1}"] = (100 * answers.shares[rows, place]).round(2)
    return pd.DataFrame(table)


def manifest_of(header: ScoreHeader, video_ids: pa.Array | pa.ChunkedArray) -> Manifest | str:
    """The manifest that the videos were read from; or why there are no pictures of them."""
    try:
        manifest = read_manifest(header.manifest)
    except ManifestError as error:
        return f"no pictures: {error}"
    missing = pc.invert(pc.is_in(video_ids, value_set=manifest.table["video_id"]))
    if (count := pc.sum(missing).as_py()) is not None and count:
        return f"no pictures: {header.manifest} has other {header.items} by now, {count:,} of those scored are missing"
    return manifest


def wrong_rows(wrong: pd.DataFrame, manifest: Manifest, videos: VideoOpener) -> Iterator[SheetRow]:
    """A row of a contact sheet for each of these wrong videos (`wrong_table`), its frames evenly spread."""
    cells_of = {cells["video_id"]: cells for cells in _cells(wrong, manifest)}
    for row in wrong.to_dict("records"):
        cells = cells_of[row["video_id"]]
        words = guesses_in_words({str(name): value for name, value in row.items()})
        label = str(row["class"])
        try:
            frames, indices, source = _frames(cells, videos)
        except DecodeError as error:
            source = f"{cells['path']} can't be read here: {error}"
            yield SheetRow(video_id=row["video_id"], label=label, clip=None, indices=(), source=source, words=words)
        else:
            yield SheetRow(
                video_id=row["video_id"], label=label, clip=frames, indices=indices, source=source, words=words
            )


def guesses_in_words(row: Mapping[str, Any]) -> str:
    """The guesses of a row of `wrong_table`, best first, and the place of the true class."""
    guesses = [
        f"{place}.\N{NO-BREAK SPACE}{row[f'guess_{place}']} {row[f'percent_{place}']:.0f}\N{NO-BREAK SPACE}%"
        for place in range(1, 6)
        if f"guess_{place}" in row
    ]
    return f"guesses: {'; '.join(guesses)} (true class: place {row['place']})"


def wrong_sheets(rows: list[SheetRow], *, of: int) -> list[Figure]:
    """Contact sheets of so many wrong videos, some rows each."""
    sheets = []
    for start in range(0, len(rows), ROWS_OF_A_SHEET):
        part = rows[start : start + ROWS_OF_A_SHEET]
        title = f"Wrong videos {start + 1} to {start + len(part)} of {of:,}, surest first"
        sheets.append(contact_sheet(part, title=title, pictures=PICTURES))
    return sheets


def _cells(wrong: pd.DataFrame, manifest: Manifest) -> list[dict[str, Any]]:
    places = pc.index_in(wrong["video_id"].to_numpy(), value_set=manifest.table["video_id"].combine_chunks())
    found: list[dict[str, Any]] = manifest.table.take(places).to_pylist()
    return found


def _frames(cells: Mapping[str, Any], videos: VideoOpener) -> tuple[Frames, tuple[int, ...], str]:
    """Some frames of a video, made small, their numbers, and what the video is."""
    reader = videos.open(cells["path"], num_frames=cells.get("num_frames"), image=StoredImage.of(cells))
    info = reader.info
    count = min(PICTURES, info.num_frames)
    indices = tuple(np.linspace(0, info.num_frames - 1, count).round().astype(int).tolist())
    frames = reader.read(indices).frames
    step = max(1, max(frames.shape[1:3]) // _SIDE)
    small = frames[:, ::step, ::step].copy()
    length = f"{info.num_frames} frames" if info.num_frames > 1 else "image"
    return small, indices, f"{length} {info.width}x{info.height}, {Path(cells['path']).name}"
