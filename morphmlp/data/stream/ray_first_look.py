"""A quick look at some files of each split before hours go into a run: is the disk there that holds the videos?

Opens no video. Broken ones among files that are there are found during the run.
"""

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self

import numpy as np
import ray
import ray.util

from morphmlp.config.operation import IngestConfig
from morphmlp.data.decoding.protocol import require_content
from morphmlp.data.decoding.stored_frames.frame_names import stored_path
from morphmlp.data.manifest import Manifest
from morphmlp.data.quarantine import broken_limit, too_many_broken
from morphmlp.errors import DecodeError, ManifestError

MOST_FILES = 200
"""Looked at of each split; drawn at random, the same ones each time."""
PATIENCE_S = 10.0
"""Time for all of them together, seconds."""
_THREADS = 32
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class FileSample:
    """Some files of a split."""

    split: str
    num_videos: int
    """Videos of the split."""
    files: tuple[str, ...]

    @classmethod
    def of(cls, split: str, videos: Manifest) -> Self:
        """Files of a split's available videos, and their label maps: all, or as many as are looked at."""
        rows = np.random.default_rng(0).permutation(len(videos))[:MOST_FILES]
        kinds = [name for name in ("path", "map_path") if name in videos.table.column_names]
        rows = rows[: MOST_FILES // len(kinds)]
        files = [file for name in kinds for file in videos.table[name].take(rows).to_pylist() if file is not None]
        return cls(split=split, num_videos=len(videos), files=tuple(files))


def require_files(videos: Mapping[str, Manifest], ingest: IngestConfig) -> None:
    """Refuse a run whose videos aren't there, as far as a sample shows, seen from a machine that decodes.

    Raises:
        ManifestError: A line for each split of which too many files are missing, empty or out of reach.
    """
    samples, limit = [FileSample.of(split, manifest) for split, manifest in videos.items()], broken_limit(ingest)
    several = sum(node["Alive"] for node in ray.nodes()) > 1  # type: ignore[no-untyped-call]
    if several:  # this machine needn't see the videos
        faults = ray.get(_faults_there.options(label_selector=ingest.node_labels or None).remote(samples, limit))
    else:
        faults = file_faults(samples, limit=limit)
    if faults:
        raise ManifestError("\n".join(faults))


@ray.remote(num_cpus=0)  # it only waits, and trials may have taken all CPUs
def _faults_there(samples: Sequence[FileSample], limit: float) -> list[str]:
    node = f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"  # type: ignore[no-untyped-call]
    return [f"{fault} (seen from node {node})" for fault in file_faults(samples, limit=limit)]


def file_faults(samples: Sequence[FileSample], *, limit: float, patience_s: float = PATIENCE_S) -> list[str]:
    """A line for each split that is refused, as this machine sees the files."""
    found = _look({path for sample in samples for path in sample.files}, patience_s=patience_s)
    faults = (_fault_of(sample, found, limit=limit, patience_s=patience_s) for sample in samples)
    return [fault for fault in faults if fault is not None]


def _fault_of(sample: FileSample, found: Mapping[str, str | None], *, limit: float, patience_s: float) -> str | None:
    answered = [path for path in sample.files if path in found]
    if not answered:
        return (
            f"data.{sample.split}: none of {len(sample.files)} files answers within {patience_s:g} s, the first: "
            f"{sample.files[0]}; is the disk or server there that holds them?"
        )
    broken = [f"{path}: {reason}" for path in answered if (reason := found[path]) is not None]
    if not too_many_broken(sample.split, len(broken), num_videos=sample.num_videos, limit=limit, drawn=len(answered)):
        return None
    allowed = f"ingest.max_quarantined_share {limit:g}" if limit else "ingest.on_broken fail"
    named = "; ".join(broken[:_NAMED]) + ("; ..." if len(broken) > _NAMED else "")
    return (
        f"data.{sample.split}: {len(broken)} of {len(answered)} files looked at ({sample.num_videos} videos) can't be "
        f"used, more than {allowed} allows: {named}; is the disk there that holds them?"
    )


def _look(paths: set[str], *, patience_s: float) -> dict[str, str | None]:
    """What is wrong with each file that answers in time; None: nothing."""
    found: dict[str, str | None] = {}
    waiting: SimpleQueue[str] = SimpleQueue()
    for path in sorted(paths):
        waiting.put(path)

    def work() -> None:
        try:
            while True:
                path = waiting.get_nowait()
                found[path] = _reason(path)
        except Empty:
            pass

    # Daemons: nobody waits for a thread that hangs at a server which is gone.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_THREADS, len(paths)))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + patience_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)


def _reason(path: str) -> str | None:
    path = stored_path(path)
    try:
        if Path(path).is_dir():
            with os.scandir(path) as entries:
                return None if next(entries, None) is not None else "the folder is empty"
        require_content(path)
    except DecodeError as error:
        return str(error)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None if os.access(path, os.R_OK) else "permission denied"
