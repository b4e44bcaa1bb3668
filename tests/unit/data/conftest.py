"""Small coded videos, written once, and their true frames."""

import sys
from pathlib import Path

import pytest
from coded_videos import copy_stream, sequential_frames, write_coded_videos

sys.path.insert(0, str(Path(__file__).parent))  # for golden_files and golden_set

from golden_files import GoldenFiles


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """The golden set, written as it's asked for."""
    return GoldenFiles(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def coded_videos(tmp_path_factory):
    """Paths by kind."""
    return write_coded_videos(tmp_path_factory.mktemp("coded"))


@pytest.fixture(scope="session")
def coded(coded_videos):
    """Path of a kind; skips where this FFmpeg can't write it."""

    def path(kind):
        if kind not in coded_videos:
            pytest.skip(f"this FFmpeg can't write {kind}")
        return coded_videos[kind]

    return path


@pytest.fixture(scope="session")
def true_frames(coded):
    """Frames of a kind, from a plain sequential decode."""
    known = {}

    def frames(kind):
        if kind not in known:
            known[kind] = sequential_frames(coded(kind))
        return known[kind]

    return frames


@pytest.fixture(scope="session")
def index_first(coded, tmp_path_factory):
    """`short groups` with its index at the start, so that pictures can be damaged and the file still be opened."""
    return copy_stream(
        coded("short groups"), tmp_path_factory.mktemp("damage") / "index_first.mp4", options={"movflags": "faststart"}
    )


@pytest.fixture(scope="session")
def damage():
    """Overwrites a tenth of the pictures' bytes with zeros; the file's index must be at its start."""

    def zeros(source, target):
        content = bytearray(source.read_bytes())
        start = content.index(b"mdat") + 4
        size = len(content) - start
        first, last = start + size * 4 // 10, start + size * 5 // 10
        content[first:last] = bytes(last - first)
        target.write_bytes(content)
        return target

    return zeros


@pytest.fixture(scope="session")
def damaged(index_first, damage):
    """`short groups` with damage."""
    return damage(index_first, index_first.with_name("damaged.mp4"))
