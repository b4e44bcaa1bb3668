"""Places that checkpoints are written to: folders and object stores behind one interface, and what is on a disk."""

from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow.fs import FileSystem, LocalFileSystem

from morphmlp.errors import CheckpointError
from morphmlp.training.checkpoint.content import reason_of


def open_storage(location: str) -> tuple[FileSystem, str, str]:
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
