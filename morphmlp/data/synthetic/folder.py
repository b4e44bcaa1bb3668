"""A folder of generated videos: written once, taken up again where it was stopped, never put over something else."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from morphmlp.errors import ManifestError

MARKER = "synthetic.json"
"""Says what was asked for, and whether all is there."""
Video = TypeVar("Video")


def fill_folder(
    output: Path,
    *,
    asked: Mapping[str, object],
    videos: Sequence[Video],
    write: Callable[[Video], None],
    describe: Callable[[], None],
    threads: int | None,
) -> None:
    """Write what isn't there yet: a folder that holds all that was `asked` for keeps its videos.

    `write` is called from several threads, by default one per CPU. `describe` writes annotations and manifests, each
    time: a manifest holds full paths, and the folder may have been moved.

    Raises:
        ManifestError: No videos are asked for, or the folder holds something else.
    """
    if not videos:
        raise ManifestError(f"{output}: no videos asked for; there must be at least one video")
    if not _is_complete(output, asked):
        output.mkdir(parents=True, exist_ok=True)
        _mark(output, asked, complete=False)
        # Threads: encoders work outside Python's lock, and nothing has to be forked or started.
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for _ in tqdm(pool.map(write, videos), total=len(videos), desc="videos", unit="", disable=None):
                pass
    describe()
    _mark(output, asked, complete=True)


def _is_complete(output: Path, asked: Mapping[str, object]) -> bool:
    """Whether the folder holds these very videos already; those whose writing was stopped are written again."""
    marker = output / MARKER
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    try:
        there = json.loads(marker.read_text(encoding="utf-8"))
        complete = there.pop("complete")
    except (OSError, ValueError, AttributeError, KeyError):
        raise ManifestError(f"{output}: holds something else than synthetic videos; choose another folder") from None
    if there != asked:
        differ = [key for key in sorted({*asked, *there}) if there.get(key) != asked.get(key)]
        what = ", ".join(f"{key} {there.get(key)}, asked for {asked.get(key)}" for key in differ)
        raise ManifestError(f"{output}: holds other videos ({what}); remove it or choose another folder")
    return bool(complete)


def _mark(output: Path, asked: Mapping[str, object], *, complete: bool) -> None:
    text = json.dumps({**asked, "complete": complete}, indent=2)
    (output / MARKER).write_text(text + "\n", encoding="utf-8")
