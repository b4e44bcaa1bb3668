"""Anyone's own videos or pictures: class folders, or a CSV of paths and labels. Opens no video.

`ROOT/<class>/**/<file>`: the folder right below the root is the class, however deep a file lies. A video is a video
file, a ZIP of frames, or a folder of numbered frames; a picture right in a class folder is an image, a video of one
frame. Symbolic links are followed. What is passed over is counted by its extension.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from morphmlp.data.datasets.lines import MAX_FAULTS, SPLIT_WORDS, Faults, as_table, composed, lines_of, read_content
from morphmlp.data.datasets.list_formats import LABEL_COLUMNS, PATH_COLUMNS, SPLIT_COLUMNS, column, video_by_path
from morphmlp.data.datasets.matching import (
    LabelledRows,
    below_folder,
    label_ids,
    match_files,
    names_seen,
    rows_without_repeats,
)
from morphmlp.data.datasets.video_folder import VIDEOS_OR_FRAMES, VideoFolder, is_text, without_extension
from morphmlp.data.decoding.stored_frames.frame_names import PICTURES, shown
from morphmlp.data.decoding.stored_frames.frame_stores import frame_names
from morphmlp.data.manifest import SPLITS
from morphmlp.errors import DecodeError, ManifestError

Items = Literal["videos", "images"]
_COLUMNS: Sequence[Sequence[str]] = (PATH_COLUMNS, ("label", "class_name", "class", *LABEL_COLUMNS), SPLIT_COLUMNS)
"""Names of the CSV's columns of paths, labels and splits, the surest first."""


@dataclass(frozen=True, kw_only=True)
class OwnVideo:
    """A video or image with its class's name."""

    video_id: str
    """Its path from the root on, or the CSV's."""
    path: str
    label: str
    split: str | None = None
    """Where something says it."""
    group: str | None = None
    """What the CSV's column of groups says."""


@dataclass(frozen=True, kw_only=True)
class OwnVideos:
    """What was found, and what was passed over."""

    items: Items
    videos: Sequence[OwnVideo]
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files that are neither, by extension or in words."""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Found:
    """The files of one class folder, as paths below it."""

    videos: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    """Right in the class folder."""
    picture_folders: dict[str, list[str]] = field(default_factory=dict)
    """Folders further down that hold pictures, with their names."""
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> list[str]:
        """Every picture, as an image of its own."""
        return [
            *self.pictures,
            *(f"{folder}/{name}" for folder in self.picture_folders for name in self.picture_folders[folder]),
        ]

    @property
    def frame_folders(self) -> list[str]:
        """Folders of pictures without a video file: pictures next to one are its cover or the like, no frames."""
        with_videos = {path.rpartition("/")[0] for path in self.videos}
        return [folder for folder in self.picture_folders if folder not in with_videos]

    @property
    def all_videos(self) -> list[str]:
        """Video files, archives and folders of frames."""
        return [*self.videos, *self.frame_folders]

    @property
    def other_pictures(self) -> list[str]:
        """Pictures that belong to no video."""
        frames = set(self.frame_folders)
        return [path for path in self.images if path.rpartition("/")[0] not in frames]


def read_class_folders(root: Path, *, items: Items | None = None, split: str | None = None) -> OwnVideos:
    """The videos or images of class folders, in the order of their paths.

    By default they are what is there, which may not be both. With a `split` all are of it, and their ids begin with it.

    Raises:
        ManifestError: What can't be used, all at once.
    """
    names, passed_over = _class_folders(root)
    found = {name: _look_into(root / name) for name in names}
    for each in found.values():
        passed_over.update(each.passed_over)
    taken = items or _items_of(root, found)
    faults: list[str] = []
    notes: list[str] = []
    videos: list[OwnVideo] = []
    for name, each in found.items():
        if items is None:
            faults.extend(_faults_of_frames(root / name, each))
        paths, other = (each.images, each.videos) if taken == "images" else (each.all_videos, each.other_pictures)
        if other:
            passed_over["videos" if taken == "images" else "pictures"] += len(other)
        if not paths:
            faults.append(f"{shown(str(root / name))}: holds no {taken}; put some into it, or remove the folder")
        if deeper := sum("/" in path for path in paths):
            notes.append(f"class {name}: {deeper} of its {len(paths)} {taken} lie in folders further down")
        faults.extend(
            f"{shown(f'{root}/{name}/{path}')}: isn't named in UTF-8, which a manifest can't hold (`convmv -t utf8`)"
            for path in paths
            if not is_text(name + path)
        )
        prefix = f"{split}/{name}" if split else name
        videos += [
            OwnVideo(
                video_id=composed(f"{prefix}/{path}"),
                path=f"{root.absolute()}/{name}/{path}",
                label=composed(name),
                split=split,
            )
            for path in sorted(paths)
        ]
    if faults:
        more = [f"{root}: and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
        raise ManifestError("\n".join([*faults[:MAX_FAULTS], *more]))
    return OwnVideos(items=taken, videos=videos, passed_over=passed_over, notes=notes)


def joined(parts: Sequence[OwnVideos]) -> OwnVideos:
    """The videos or images of several folders.

    Raises:
        ManifestError: Some hold videos, others images.
    """
    if len(kinds := {part.items for part in parts}) > 1:
        raise ManifestError(f"some of the splits hold {' and others '.join(sorted(kinds))}; they must hold one kind")
    return OwnVideos(
        items=parts[0].items,
        videos=[video for part in parts for video in part.videos],
        passed_over=sum((part.passed_over for part in parts), Counter()),
        notes=[note for part in parts for note in part.notes],
    )


def _class_folders(root: Path) -> tuple[list[str], Counter[str]]:
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; it must hold a folder for each class")
    with os.scandir(root) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    names = [entry.name for entry in listed if entry.is_dir() and not entry.name.startswith(".")]
    passed_over = Counter(_kind_passed_over(entry) for entry in listed if entry.name not in names)
    if not names:
        raise ManifestError(f"{root}: holds no folders; each class needs one with its videos or images")
    if len(names) > 1 and all(name.lower() in SPLIT_WORDS for name in names):
        options = " ".join(f"--{SPLIT_WORDS[name.lower()]} {root / name}" for name in names)
        raise ManifestError(f"{root}: holds the splits {', '.join(names)}, not classes; give {options}")
    return names, passed_over


def _kind_passed_over(entry: "os.DirEntry[str]") -> str:
    if entry.is_symlink() and not entry.is_file() and not entry.is_dir():
        return "links that lead nowhere"
    if entry.name.startswith("."):
        return "hidden"
    return os.path.splitext(entry.name)[1].lower() or "without extension"  # noqa: PTH122 - a Path each costs more


def _look_into(class_folder: Path) -> _Found:
    found = _Found()
    for folder, below, entry in _files(class_folder, found.passed_over):
        path = f"{below}{entry.name}"
        extension = without_extension(entry.name)[1].lower()
        if entry.name.startswith(".") or not entry.is_file():
            found.passed_over[_kind_passed_over(entry)] += 1
        elif extension in PICTURES and below:
            found.picture_folders.setdefault(folder, []).append(entry.name)
        elif extension in PICTURES:
            found.pictures.append(path)
        elif extension:
            found.videos.append(path)
        else:
            found.passed_over[_kind_passed_over(entry)] += 1
    return found


def _files(class_folder: Path, passed_over: Counter[str]) -> Iterator[tuple[str, str, "os.DirEntry[str]"]]:
    """All files below a folder, with their folder and its path from the class folder on; links are followed."""
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(class_folder),))]
    while waiting:
        below, above = waiting.pop()
        try:
            with os.scandir(class_folder / below) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise ManifestError(f"{shown(str(class_folder / below))}: can't be listed: {error.strerror}") from None
        for entry in listed:
            if not entry.is_dir() or entry.name.startswith("."):
                yield below.rstrip("/"), below, entry
            elif (place := os.path.realpath(entry.path)) in above:
                passed_over["links to a folder above"] += 1
            else:
                waiting.append((f"{below}{entry.name}/", (*above, place)))


def _items_of(root: Path, found: dict[str, _Found]) -> Items:
    """Videos or images: what there is."""
    videos = sum(len(each.all_videos) for each in found.values())
    images = sum(len(each.pictures) for each in found.values())
    if videos and images:
        raise ManifestError(
            f"{root}: holds {videos} videos (files, or folders of frames) and {images} pictures right in class "
            "folders; say which are meant: --items videos or --items images"
        )
    return "images" if images else "videos"


def _faults_of_frames(class_folder: Path, found: _Found) -> Iterator[str]:
    for folder in found.frame_folders:
        try:
            frame_names(f"{class_folder}/{folder}")
        except DecodeError as error:
            yield (
                f"{error}; if each picture is an image of its own, say --items images; --items videos keeps the folder "
                "as a video that can't be read"
            )


def read_own_csv(path: Path, *, root: Path, group_column: str | None = None) -> OwnVideos:
    """The videos or images of a CSV with a header: `path`, `label`, and if wanted `split` and a column of groups.

    Labels are names, also where they are numbers. An empty cell of `split` leaves the video to be divided. Commas,
    semicolons or tabs part its columns, and its paths begin at the root.

    Raises:
        ManifestError: All faults with their lines.
    """
    faults = Faults(path)
    table = as_table(lines_of(read_content(path), faults))
    place, label, split = (column(table, names) if table else None for names in _COLUMNS)
    if table is None or place is None or label is None:
        raise ManifestError(f"{path}: its first line must name the columns: path,label or path,label,split")
    if group_column is not None and group_column.lower() not in table.header:
        raise ManifestError(f"{path}: has no column {group_column!r} (--group-column), but {', '.join(table.header)}")
    cells = {line: row for line, row in table.rows(faults) if _is_complete(line, row, (place, label), split, faults)}
    rows, notes = below_folder(
        [video_by_path(line, row[place], composed(row[label]), "", VIDEOS_OR_FRAMES) for line, row in cells.items()],
        folder := VideoFolder(root),
    )
    rows = rows_without_repeats(rows, faults)
    names, order = names_seen(rows)
    labelled = LabelledRows(
        rows=rows, labels=label_ids(rows, names, faults), class_names=names, form="CSV", class_order=order
    )
    manifest = match_files(labelled, folder, file=path, faults=faults, allow_missing=False).manifest
    paths = manifest.table["path"].to_pylist()
    images = sum(without_extension(each)[1].lower() in PICTURES for each in paths)
    if 0 < images < len(paths):
        raise ManifestError(f"{path}: lists {images} images and {len(paths) - images} videos; it must be one of them")
    group = None if group_column is None else group_column.lower()
    videos = [
        OwnVideo(
            video_id=row.video_id,
            path=where,
            label=str(row.label),
            split=SPLIT_WORDS[said.lower()] if (said := cells[row.line].get(split or "", "")) else None,
            group=None if group is None else cells[row.line][group] or None,
        )
        for row, where in zip(rows, paths, strict=True)
    ]
    return OwnVideos(items="images" if images else "videos", videos=videos, notes=notes)


def _is_complete(line: int, row: dict[str, str], needed: tuple[str, str], split: str | None, faults: Faults) -> bool:
    before = len(faults)
    for name in needed:
        if not row[name]:
            faults.add(line, f"{name} is empty; each line needs a path and a label")
    if split and row[split] and row[split].lower() not in SPLIT_WORDS:
        faults.add(line, f"{split} is {row[split]!r}; it must be one of {', '.join(SPLITS)}, or empty")
    return len(faults) == before
