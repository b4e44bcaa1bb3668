"""Files that requests bring or name: uploads, streamed to a disk and always removed, and paths in allowed folders."""

import asyncio
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from morphmlp.data.datasets.video_folder import without_extension
from morphmlp.data.decoding.stored_frames.frame_names import shown
from morphmlp.errors import storage_fault
from morphmlp.serving.limits import MB, RefusedError, ServingLimits

_WRITE_BYTES = MB
_LOCK = "lock"


class AllowedFolders:
    """Folders of which files may be named; without any no file may."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = tuple(os.path.realpath(folder) for folder in folders)

    def file(self, path: str) -> str:
        """The real place of a file below one of them, whatever links lead there.

        Raises:
            RefusedError: It's outside, isn't there, or is no file that can be read. Of what is outside nothing is said.
        """
        if not self.folders:
            raise RefusedError(403, "path: no folder is allowed; the server's --allowed-folder names one")
        try:
            place = os.path.realpath(path)
        except ValueError:
            raise RefusedError(400, f"path: {path!r} is no path") from None
        if not Path(path).is_absolute() or not any(Path(place).is_relative_to(folder) for folder in self.folders):
            raise RefusedError(403, f"path: {shown(path)}: isn't in an allowed folder ({', '.join(self.folders)})")
        try:
            mode = os.stat(place).st_mode  # noqa: PTH116 - a string, as decoders take it
        except OSError as error:
            raise RefusedError(404, f"path: {shown(path)}: {(error.strerror or str(error)).lower()}") from None
        if not stat.S_ISREG(mode):
            raise RefusedError(400, f"path: {shown(path)}: is no regular file")
        if not os.access(place, os.R_OK):
            raise RefusedError(403, f"path: {shown(path)}: may not be read by the server")
        return place


class UploadFolder:
    """A folder of this process for uploads; what processes left that were killed is removed."""

    def __init__(self, parent: str | None) -> None:
        """Make it below `parent`, or below the system's place for temporary files.

        Raises:
            OSError: It can't be made.
        """
        home = Path(parent or tempfile.gettempdir()) / f"morphmlp-uploads-{os.getuid()}"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.is_symlink() or home.stat().st_uid != os.getuid():
            raise PermissionError(errno.EACCES, "belongs to somebody else", str(home))
        with (home / _LOCK).open("w") as starting:  # one at a time: a folder without a lock is being made
            fcntl.flock(starting, fcntl.LOCK_EX)
            for left in home.iterdir():
                if _is_left(left):
                    shutil.rmtree(left, ignore_errors=True)
            self.path = Path(tempfile.mkdtemp(dir=home))
            self._lock = (self.path / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    @asynccontextmanager
    async def received(
        self, pieces: AsyncIterator[bytes], *, name: str, stated_bytes: int | None, limits: ServingLimits
    ) -> AsyncIterator[str]:
        """The path of an upload while the block lasts.

        Its bytes are counted as they come; one that states more than it may have isn't read at all.

        Raises:
            RefusedError: It's too large, empty, stands still or takes too long, or the disk is full.
        """
        too_large = RefusedError(
            413, f"the file has more than the {limits.upload_bytes / MB:,g} MB that are taken", unread=True
        )
        if stated_bytes is not None and stated_bytes > limits.upload_bytes:
            raise too_large
        with ExitStack() as opened:
            with _disk_faults_refused():
                extension = without_extension(name)[1].lower()
                file = opened.enter_context(NamedTemporaryFile(dir=self.path, prefix="upload-", suffix=extension))
                size = 0
                async for data in _gathered(pieces, limits):
                    size += len(data)
                    if size > limits.upload_bytes:
                        raise too_large
                    await asyncio.to_thread(_write, file, data)
            if not size:
                raise RefusedError(400, "the request's body is empty; it must be the file's bytes")
            yield file.name


@contextmanager
def _disk_faults_refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if storage_fault(error) is None:
            raise
        raise RefusedError(507, f"the file can't be kept: {os.strerror(error.errno or 0).lower()}") from None


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()


async def _gathered(pieces: AsyncIterator[bytes], limits: ServingLimits) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces: each is a call of a thread and of the disk."""
    waiting, size = list[bytes](), 0
    now = asyncio.get_running_loop().time
    last_s = now() + limits.upload_s
    while True:
        try:
            async with asyncio.timeout_at(min(now() + limits.stalled_s, last_s)):
                piece = await anext(pieces)
        except StopAsyncIteration:
            break
        except TimeoutError:
            late = f"not all of it came within {limits.upload_s:g} s"
            line = late if now() >= last_s else f"not a byte came for {limits.stalled_s:g} s"
            raise RefusedError(408, line, unread=True) from None
        waiting.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if size:
        yield b"".join(waiting)


def _is_left(folder: Path) -> bool:
    """Whether the process that it belonged to is gone."""
    with suppress(OSError), (folder / _LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
