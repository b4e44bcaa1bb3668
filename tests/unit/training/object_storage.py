"""An object store in a folder, which fails and waits as a test wants it."""

import errno
import threading

import fsspec
from pyarrow import OSFile, PythonFile
from pyarrow.fs import FSSpecHandler, PyFileSystem


class ObjectStorage(FSSpecHandler):
    """Not a local file system to its users, so nothing is renamed; its objects can be touched by their paths."""

    def __init__(self):
        super().__init__(fsspec.filesystem("file"))
        self.writes_fail_after: int | None = None
        self.deletes_fail = False
        self.listing_fails = False
        self.opened = threading.Event()
        """Somebody opened a file to write."""
        self.may_write = threading.Event()
        self.may_write.set()

    def filesystem(self):
        return PyFileSystem(self)

    def open_output_stream(self, path, metadata):
        self.opened.set()
        self.may_write.wait(30)
        if self.writes_fail_after is None:
            return super().open_output_stream(path, metadata)
        return PythonFile(FullFile(path, self.writes_fail_after), mode="w")

    def get_file_info_selector(self, selector):
        if self.listing_fails:
            raise OSError("the network is down")
        return super().get_file_info_selector(selector)

    def delete_dir(self, path):
        if self.deletes_fail:
            raise PermissionError(errno.EACCES, "no")
        super().delete_dir(path)

    def delete_file(self, path):
        if self.deletes_fail:
            raise PermissionError(errno.EACCES, "no")
        super().delete_file(path)


class FullFile:
    """Takes some bytes and then no more."""

    closed = False

    def __init__(self, path, room):
        self._file = OSFile(path, "wb")
        self._room = room

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "full")
        return self._file.write(data)

    def flush(self):
        self._file.flush()

    def close(self):
        self.closed = True
        self._file.close()
