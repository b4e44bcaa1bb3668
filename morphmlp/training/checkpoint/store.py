"""Where a run's checkpoints are kept: a folder or an object store.

A checkpoint is a folder `step-00000123-1a2b3c4d/` with `checkpoint.pt` and, written last, the marker
`complete.json`. One writer at a time; in a folder it writes under a hidden name and renames.
"""

import contextlib
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
from pydantic import ConfigDict, FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from morphmlp.errors import CheckpointError, StorageError
from morphmlp.files import fsync, fsync_folder
from morphmlp.tasks.scores import ScoreName
from morphmlp.training.checkpoint.content import FORMAT, read_content, reason_of, write_content

CONTENT_FILE = "checkpoint.pt"
_MARKER_FILE = "complete.json"
_NAME = re.compile(r"step-\d{8,}-[0-9a-f]{8}")
_HIDDEN = re.compile(rf"\.{_NAME.pattern}\.unfinished")
_CHUNK_BYTES = 16 * 2**20
_Found: TypeAlias = "tuple[StoredCheckpoint, dict[str, Any]] | None"


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What is known of a checkpoint without reading it."""

    epoch: int
    """Epoch of the next step."""
    step: int
    """Steps taken, over all epochs."""
    score: float | None
    """Primary score of these weights at validation; None where they weren't validated."""


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """A checkpoint that was written to its end."""

    name: str
    """Name of its folder, unique in the run."""
    facts: CheckpointFacts
    location: str
    """Path or address for messages, without credentials."""
    written_at: float
    """Seconds since 1970."""
    size: int
    """Bytes of the content."""
    sha256: str
    """Of the content."""

    @property
    def age(self) -> tuple[int, float, str]:
        """Sorts from the oldest to the newest: by step, then by time of writing."""
        return self.facts.step, self.written_at, self.name


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class _Marker:
    format: str
    size: NonNegativeInt
    sha256: str
    epoch: NonNegativeInt
    step: NonNegativeInt
    score: FiniteFloat | None
    written_at: FiniteFloat


_MARKER = TypeAdapter(_Marker)


class _UnmarkedError(CheckpointError):
    """A folder without a marker."""


class CheckpointStore:
    """The checkpoints of one run. Every method raises StorageError where the storage can't be read or written."""

    def __init__(self, filesystem: FileSystem, root: str, *, location: str | None = None) -> None:
        self._files = filesystem
        self._root = root
        self._renames = isinstance(filesystem, LocalFileSystem)
        self.location = location or root

    @classmethod
    def of(cls, storage: str, run_name: str) -> Self:
        """The store of a run, `<storage>/<run name>/checkpoints`.

        The storage is a path, or an address such as `s3://bucket/folder`.

        Raises:
            CheckpointError: No such kind of storage, or it can't be reached.
        """
        filesystem, root, shown = _open_storage(storage)
        return cls(filesystem, f"{root}/{run_name}/checkpoints", location=f"{shown}/{run_name}/checkpoints")

    def save(self, content: Mapping[str, object], facts: CheckpointFacts) -> StoredCheckpoint:
        """Write a checkpoint, which is seen when it is complete; what dead writers left is removed before.

        The content is nested dicts of plain values and tensors on the CPU, `format` among the keys.

        Raises:
            StorageError: It is full or fails. Nothing of this one is seen, earlier ones are kept.
        """
        if content.get("format") != FORMAT:
            raise ValueError(f"the content's format is {content.get('format')!r}, not {FORMAT!r}")
        name = f"step-{facts.step:08d}-{secrets.token_hex(4)}"
        try:
            self._remove_remains()
            marker = self._write(name, content, facts)
        except OSError as error:
            # Without the folder's name, which is another one at every try.
            raise StorageError(
                f"{self.location}: can't be written: {reason_of(error)}; earlier checkpoints are kept"
            ) from None
        return self._stored(name, marker)

    def stored(self) -> list[StoredCheckpoint]:
        """All that were written to their end, from the oldest to the newest."""
        return self._survey()[0]

    def newest(self, log: Callable[[str], None]) -> _Found:
        """The newest checkpoint that is complete, and its content; None where there are none.

        `log` takes a line for every checkpoint that is left out, with its name and the reason.

        Raises:
            CheckpointError: There are checkpoints, and none is complete.
        """
        return self._first_complete(log, lambda stored: stored)

    def best(self, score: ScoreName, log: Callable[[str], None]) -> _Found:
        """The complete checkpoint of the best validation score, and its content; None where none was validated.

        Of equals the later is the better; `log` as in `newest`.

        Raises:
            CheckpointError: There are checkpoints, and none is complete.
        """
        return self._first_complete(log, lambda stored: _by_score(stored, score))

    def _first_complete(
        self, log: Callable[[str], None], ranked: Callable[[list[StoredCheckpoint]], list[StoredCheckpoint]]
    ) -> _Found:
        stored, left_out = self._survey()
        for error in left_out:
            log(f"checkpoint left out: {error}")
        # In an object store a dead writer leaves unmarked ones; in a folder they would be hidden.
        faults = [str(error) for error in left_out if self._renames or not isinstance(error, _UnmarkedError)]
        candidates = ranked(stored)
        for checkpoint in reversed(candidates):
            try:
                return checkpoint, self._content(checkpoint)
            except StorageError:
                raise
            except CheckpointError as error:
                faults.append(str(error))
                log(f"checkpoint left out: {error}")
        if faults and (candidates or not stored):
            raise CheckpointError(
                f"{self.location}: none of its checkpoints can be read; move them away to start afresh, or use another "
                f"--run-name: {'; '.join(faults)}"
            )
        return None

    def read(self, name: str) -> dict[str, Any]:
        """The content of one checkpoint.

        Raises:
            CheckpointError: There is none of that name, it is truncated, or it is something else.
        """
        return self._content(self._stored(name, self._marker(name)))

    def prune(
        self, newest: StoredCheckpoint, *, keep_last: int, best_by: ScoreName | None, log: Callable[[str], None]
    ) -> None:
        """Remove all but the newest ones and the best one.

        Those of later steps than `newest`, the one just saved, couldn't be read when the run continued: they aren't
        counted and go. Without `best_by` no best one stays; `log` takes a line for what couldn't be removed.
        """
        try:
            stored = self.stored()
        except CheckpointError as error:
            log(f"old checkpoints stay: {error}")
            return
        readable = [one for one in stored if one.age <= newest.age]
        kept = set(readable[-keep_last:])
        if best_by is not None:
            kept.update(_by_score(readable, best_by)[-1:])
        self._remove_each([one for one in stored if one not in kept], log)

    def clear(self, log: Callable[[str], None]) -> int:
        """Remove all checkpoints, of a run that nobody will continue; returns the bytes that they took."""
        self._remove_remains()
        return self._remove_each(self.stored(), log)

    def _remove_each(self, checkpoints: Iterable[StoredCheckpoint], log: Callable[[str], None]) -> int:
        freed = 0
        for checkpoint in checkpoints:
            try:
                self._remove(checkpoint.name)
                freed += checkpoint.size
            except OSError as error:
                log(f"{checkpoint.location}: an old checkpoint that can't be removed: {reason_of(error)}")
        return freed

    def _path(self, *names: str) -> str:
        return "/".join((self._root, *names))

    def _stored(self, name: str, marker: _Marker) -> StoredCheckpoint:
        return StoredCheckpoint(
            name=name,
            facts=CheckpointFacts(epoch=marker.epoch, step=marker.step, score=marker.score),
            location=f"{self.location}/{name}",
            written_at=marker.written_at,
            size=marker.size,
            sha256=marker.sha256,
        )

    def _folders(self) -> list[str]:
        try:
            found = self._files.get_file_info(FileSelector(self._root, allow_not_found=True))
        except OSError as error:
            raise StorageError(f"{self.location}: can't be listed: {reason_of(error)}") from None
        return [file.base_name for file in found if file.type == FileType.Directory]

    def _survey(self) -> tuple[list[StoredCheckpoint], list[CheckpointError]]:
        """The checkpoints from the oldest to the newest, and what's wrong with those that can't be counted."""
        stored, left_out = [], []
        for name in filter(_NAME.fullmatch, self._folders()):
            try:
                stored.append(self._stored(name, self._marker(name)))
            except StorageError:
                raise
            except CheckpointError as error:
                left_out.append(error)
        return sorted(stored, key=lambda checkpoint: checkpoint.age), left_out

    def _is_unmarked(self, name: str) -> bool:
        return bool(self._files.get_file_info(self._path(name, _MARKER_FILE)).type == FileType.NotFound)

    def _marker(self, name: str) -> _Marker:
        location = f"{self.location}/{name}"
        try:
            with self._files.open_input_stream(self._path(name, _MARKER_FILE)) as stream:
                marker = _MARKER.validate_json(stream.read())
        except FileNotFoundError:
            raise _UnmarkedError(f"{location}: no complete checkpoint, it has no {_MARKER_FILE}") from None
        except OSError as error:
            raise _unreadable(f"{location}: its {_MARKER_FILE}", error) from None
        except ValidationError as error:
            fault = error.errors()[0]
            where = "".join(f"{part}: " for part in fault["loc"])
            raise CheckpointError(
                f"{location}: its {_MARKER_FILE} is garbled or not ours: {where}{fault['msg']}"
            ) from None
        if marker.format != FORMAT:
            raise CheckpointError(f"{location}: its {_MARKER_FILE} is of format {marker.format!r}, not {FORMAT!r}")
        return marker

    def _content(self, checkpoint: StoredCheckpoint) -> dict[str, Any]:
        try:
            with self._local_file(self._path(checkpoint.name, CONTENT_FILE)) as file:
                return read_content(file, size=checkpoint.size, sha256=checkpoint.sha256)
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint.location}: {error}") from None
        except FileNotFoundError:
            raise CheckpointError(f"{checkpoint.location}: truncated: it has no {CONTENT_FILE}") from None
        except OSError as error:
            raise _unreadable(checkpoint.location, error) from None

    @contextlib.contextmanager
    def _local_file(self, path: str) -> Iterator[BinaryIO]:
        """A seekable file with the bytes; from an object store they are fetched once, into a temporary file."""
        if self._renames:
            with Path(path).open("rb") as file:
                yield file
            return
        with tempfile.TemporaryFile() as file, self._files.open_input_stream(path) as stream:
            shutil.copyfileobj(stream, file, _CHUNK_BYTES)
            yield file

    def _write(self, name: str, content: Mapping[str, object], facts: CheckpointFacts) -> _Marker:
        folder = _hidden(name) if self._renames else name
        try:
            self._files.create_dir(self._path(folder), recursive=True)
            with self._files.open_output_stream(self._path(folder, CONTENT_FILE)) as stream:
                size, sha256 = write_content(stream, content)
            marker = _Marker(
                format=FORMAT,
                size=size,
                sha256=sha256,
                epoch=facts.epoch,
                step=facts.step,
                score=facts.score,
                written_at=time.time(),
            )
            if self._renames:
                fsync(self._path(folder, CONTENT_FILE))
            with self._files.open_output_stream(self._path(folder, _MARKER_FILE)) as stream:
                stream.write(_MARKER.dump_json(marker, indent=1))
            if self._renames:
                fsync(self._path(folder, _MARKER_FILE))
                fsync_folder(self._path(folder))
                self._files.move(self._path(folder), self._path(name))
        except BaseException:
            with contextlib.suppress(OSError):
                self._remove(folder)
            raise
        if self._renames:
            fsync_folder(self._root)
        return marker

    def _remove(self, name: str) -> None:
        """Remove a folder, its marker or its name first, so that one half removed is never taken for complete."""
        if self._renames and not _HIDDEN.fullmatch(name):
            self._files.move(self._path(name), self._path(_hidden(name)))
            name = _hidden(name)
        elif not self._is_unmarked(name):
            self._files.delete_file(self._path(name, _MARKER_FILE))
        self._files.delete_dir(self._path(name))

    def _remove_remains(self) -> None:
        """Remove what writers left that died while they wrote or removed; what can't be removed stays."""
        for name in self._folders():
            left = _HIDDEN.fullmatch(name) if self._renames else _NAME.fullmatch(name) and self._is_unmarked(name)
            if left:
                with contextlib.suppress(OSError):
                    self._files.delete_dir(self._path(name))


def _open_storage(location: str) -> tuple[FileSystem, str, str]:
    """The file system of a path or address, the path in it, and the location without credentials and options."""
    if "://" not in location:
        path = str(Path(location).absolute())
        return LocalFileSystem(), path, path
    parts = urlsplit(location)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
    try:
        filesystem, path = FileSystem.from_uri(location)
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(f"{shown}: can't be used as storage: {reason_of(error)}") from None
    return filesystem, path.rstrip("/"), shown


def _by_score(stored: Iterable[StoredCheckpoint], score: ScoreName) -> list[StoredCheckpoint]:
    """The validated ones, from the worst to the best; of equals the later is the better."""
    gains = {one: score.gain(one.facts.score) for one in stored if one.facts.score is not None}
    return sorted(gains, key=lambda one: (gains[one], one.age))


def _unreadable(what: str, error: OSError) -> StorageError:
    return StorageError(
        f"{what} can't be read: {reason_of(error)}; fix the storage, or move this checkpoint away to do without it"
    )


def _hidden(name: str) -> str:
    return f".{name}.unfinished"
