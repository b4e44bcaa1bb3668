"""Decoded clips on disk, so that trainings on the same data decode each clip once between them.

A clip's address is a digest of all that its bytes follow from: what is extracted and how (sampling, sizes,
augmentation, the seed of its draws, the epoch), the video's content as far as it's known, and the versions of decoder
and torch. So trials of a sweep that differ in the network or the optimiser share clips, and nothing that would differ
is ever shared.

For any number of processes at once. A clip that two of them need at the same time is decoded by the first, and the
others wait for it. What the disk refuses, or gives back incomplete, is decoded as without a cache.
"""

import fcntl
import hashlib
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import ClipExtractor, ExtractedClips
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.data.decoding.stored_frames.frame_names import split_template
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.decoding.stored_frames.stills import image_decoder_version
from morphmlp.files import UNFINISHED, atomic_file

FORMAT = 1
SHARDS = 64
"""Folders that the clips are spread over."""
_LOCKS = 4096
"""Files that are locked, each for a share of the clips."""
_LOOK_EVERY = 4
"""Of so many clips one, when it's added, makes its process look whether the shard has outgrown its part."""
_KEPT_SHARE = 0.9
"""What a shard that has outgrown its part is brought back to."""
ABANDONED_S = 3600.0
"""A clip that is still being written after this time was left by a process that died, seconds."""
_SUFFIX = ".arrow"


@dataclass(frozen=True, kw_only=True)
class ClipCache:
    """A folder of decoded clips. A plain value, so that it travels; nothing is opened before its first use."""

    folder: str
    """On a local disk, or on one that several nodes have mounted."""
    max_bytes: int
    """Most that the clips may take up; the least recently used go."""

    def get(self, address: str, decode: Callable[[], ExtractedClips]) -> ExtractedClips:
        """The clips of a `clip_address`, decoded where they aren't there yet; what `decode` raises passes through."""
        path = self._path(address)
        if (found := _read(path)) is not None:
            return found
        with _locked(Path(self.folder) / "locks" / f"{int(address[:8], 16) % _LOCKS:04x}"):
            # Again, with the lock: another process may have made it while this one waited.
            if (found := _read(path)) is not None:
                return found
            extracted = decode()
            if _write(path, extracted) and int(address[8:16], 16) % _LOOK_EVERY == 0:
                self._shrink(path.parent)
            return extracted

    def _path(self, address: str) -> Path:
        return Path(self.folder) / "clips" / f"{int(address[-8:], 16) % SHARDS:02x}" / (address + _SUFFIX)

    def _shrink(self, shard: Path) -> None:
        """Remove what was abandoned, and the least recently used clips of a shard that has outgrown its part."""
        part = self.max_bytes / SHARDS
        with suppress(OSError):
            clips = []
            for entry in os.scandir(shard):
                with suppress(FileNotFoundError):  # another process was faster; the same below
                    status = entry.stat()
                    if entry.name.endswith(_SUFFIX):
                        clips.append((status.st_mtime, status.st_size, Path(entry.path)))
                    elif entry.name.endswith(UNFINISHED) and status.st_mtime < time.time() - ABANDONED_S:
                        Path(entry.path).unlink()
            size = sum(clip_size for _, clip_size, _ in clips)
            if size <= part:
                return
            for _, clip_size, path in sorted(clips):
                with suppress(FileNotFoundError):
                    path.unlink()
                size -= clip_size
                if size <= _KEPT_SHARE * part:
                    return


def clip_address(
    extractor: ClipExtractor,
    key: ClipKey,
    decoder: str,
    *,
    path: str,
    num_frames: int | None,
    crc32: int | None,
    image: StoredImage | None = None,
    image_decoder: str = "simplejpeg",
    label_map: OpenVideo | None = None,
) -> str:
    """The address of what an extractor makes of a video, and of the label map that it takes with it; 64 hex digits.

    Raises:
        OSError: There is no such file.
    """
    stored, template = split_template(path)
    status = Path(stored).stat()
    draws = key.of() if extractor.draws else [key.video_id]
    content = {
        "format": FORMAT,
        "extractor": [type(extractor).__name__, asdict(extractor)],
        "draws": draws,
        "video": [num_frames, crc32, status.st_size, status.st_mtime_ns, *([template] if template else [])],
        **({} if image is None else {"image": asdict(image)}),
        **({} if label_map is None else {"map": _map_identity(label_map)}),
        # torch and Pillow (whose version this has too) resize and augment
        "made_with": [decoder, _version(decoder), image_decoder_version(image_decoder), torch.__version__],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _map_identity(source: OpenVideo) -> list[object]:
    status = Path(source.path).stat()
    labels = None if source.image is None else source.image.labels
    return [source.crc32, status.st_size, status.st_mtime_ns, labels]


@cache
def _version(decoder: str) -> str:
    return decoder_by_name(decoder).version


def _read(path: Path) -> ExtractedClips | None:
    """The clips of a file; None where there is none, or an incomplete one."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        facts: dict[str, Any] = {name.decode(): json.loads(value) for name, value in table.schema.metadata.items()}
        clips = np.frombuffer(table["clips"].combine_chunks().buffers()[1], dtype=np.uint8)
        if zlib.crc32(clips.data) != facts["crc32"]:  # a power cut may leave holes in a file that looks complete
            return None
        maps = clips[clips.size - math.prod(facts["maps"]) :].reshape(facts["maps"]) if "maps" in facts else None
        clips = clips[: math.prod(facts["shape"])].reshape(facts["shape"])
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError):
        return None
    with suppress(OSError):
        os.utime(path)  # the most recently used
    return ExtractedClips(clips=clips, concealed=facts["concealed"], refused=facts["refused"], maps=maps)


def _write(path: Path, extracted: ExtractedClips) -> bool:
    """Keep clips, with their maps behind them; whether the disk took them."""
    clips = np.ascontiguousarray(extracted.clips)
    facts: dict[str, Any] = {
        "shape": clips.shape,
        "concealed": extracted.concealed,
        "refused": extracted.refused,
    }
    if extracted.maps is not None:
        facts["maps"] = extracted.maps.shape
        clips = np.concatenate([clips.reshape(-1), extracted.maps.reshape(-1)])
    facts["crc32"] = zlib.crc32(clips.data)
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    table = pa.table({"clips": pa.Array.from_buffers(pa.uint8(), clips.size, [None, pa.py_buffer(clips)])})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_file(path, sync=False) as unfinished,  # see the CRC-32 in `_read`
            pa.ipc.new_file(unfinished, table.schema.with_metadata(metadata)) as writer,
        ):
            writer.write_table(table.replace_schema_metadata(metadata))
    except (OSError, pa.ArrowException):
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, which the operating system takes back from a process that dies; without one where there are none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError:
        yield
        return
    with file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
