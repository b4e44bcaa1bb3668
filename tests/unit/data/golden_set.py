"""What decoders make of the golden set's files, and the table of that in the documentation.

python tests/unit/data/golden_set.py    # prints the table of docs/decoders.md, as the installed decoders fill it
"""

import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from golden_files import CELLS, NUM_FRAMES, Cell, GoldenFiles
from tabulate import tabulate

from morphmlp.data.decoding.backends import DECODER_NAMES, decoder_by_name, decoder_fault
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.protocol import Frames, VideoOpener, VideoReader
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.errors import DecodeError

SAME_PICTURE = 3.0
"""Mean absolute difference of RGB levels up to which two pictures are the same one: FFmpeg's versions and decord round
colours in other ways. Neighbouring frames are 30 and more apart, the same one in the other range 10."""


def outcome(videos: VideoOpener, path: Path, truth: Frames | None, *, singles: int) -> str:
    """What a decoder makes of a file: `exact`, `refused: REASON`, or `wrong: WHAT`.

    A frame that is counted as concealed is reported, and isn't wrong: where a file is cut short FFmpeg leaves it out.

    Args:
        videos: The decoder.
        path: The file.
        truth: Its frames.
        singles: Frames that are read alone, at most.
    """
    try:
        reader = videos.open(str(path), num_frames=None)
        everything = list(range(reader.info.num_frames))
        expected = _by_index(reader, truth)
        if expected is None:
            return f"wrong: {len(everything)} frames, FFmpeg gives {0 if truth is None else len(truth)}"
        alone = random.Random(0).sample(everything, k=min(singles, len(everything)))
        wrong = {"alone": sum(_wrong(reader, [index], expected) for index in alone)}
        subsets = [everything[first::step] for first, step in ((0, 4), (len(everything) // 5, 7), (0, 25))]
        wrong["of some"] = sum(_wrong(reader, subset, expected) for subset in subsets)
        reader = videos.open(str(path), num_frames=None)  # one that has read nothing yet
        wrong["of all"] = _wrong(reader, everything, expected)
    except DecodeError as error:
        return f"refused: {error}"
    return f"wrong: frames {wrong}" if any(wrong.values()) else "exact"


def _by_index(reader: VideoReader, truth: Frames | None) -> dict[int, Frames] | None:
    """FFmpeg's frames by the decoder's index, which also counts those that don't come out; None where none fits."""
    indices = list(range(reader.info.num_frames))
    there = 0 if truth is None else len(truth)
    if there < len(indices):
        indices = [index for index in indices if not reader.read([index]).concealed]
    return None if truth is None or there != len(indices) else dict(zip(indices, truth, strict=True))


def _wrong(reader: VideoReader, indices: Sequence[int], expected: Mapping[int, Frames]) -> int:
    """Frames that aren't FFmpeg's, beyond those that the decoder counts as concealed itself."""
    decoded = reader.read(indices)
    pairs = zip(indices, decoded.frames, strict=True)
    right = sum(index in expected and _same(frame, expected[index]) for index, frame in pairs)
    return max(len(indices) - right - decoded.concealed, 0)


def _same(frame: Frames, expected: Frames) -> bool:
    return frame.shape == expected.shape and bool(np.abs(frame.astype(np.int16) - expected).mean() <= SAME_PICTURE)


def opener(decoder: str) -> VideoOpener:
    """PyAV in this process, where it is quick; another decoder in one of its own, since some files hang or crash it."""
    return AnyVideo(decoder_by_name(decoder)) if decoder == "pyav" else IsolatedVideos(decoder, Limits(timeout_s=20))


def singles(decoder: str) -> int:
    """Frames of a file to read alone: all with the default decoder; another one's child makes each read expensive."""
    return NUM_FRAMES if decoder == "pyav" else 10


def table(outcomes: Mapping[tuple[str, str], str]) -> str:
    """The table of the documentation: a row per kind, and for each decoder what it makes of which container.

    Args:
        outcomes: By name of the cell and of the decoder.
    """
    kinds: dict[str, list[Cell]] = {}
    for cell in CELLS.values():
        kinds.setdefault(cell.kind, []).append(cell)
    rows = [
        [kind, ", ".join(cell.container for cell in cells)]
        + [_summary({cell.container: outcomes.get((cell.name, name)) for cell in cells}) for name in DECODER_NAMES]
        for kind, cells in kinds.items()
    ]
    return tabulate(rows, ["frames", "containers", *DECODER_NAMES], tablefmt="github", disable_numparse=True)


def _summary(outcomes: Mapping[str, str | None]) -> str:
    groups: dict[str, list[str]] = {}
    for container, found in outcomes.items():
        groups.setdefault("not run" if found is None else found.partition(":")[0], []).append(container)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{word}: {', '.join(groups[word])}" for word in ("exact", "wrong", "refused") if word in groups)


def documented(page: str) -> dict[tuple[str, str], str]:
    """`exact`, `wrong` or `refused` by name of the cell and of the decoder, as the documentation's table has it."""
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    decoders = rows[0][2:]
    found = {}
    for kind, containers, *summaries in rows[2:]:
        for decoder, summary in zip(decoders, summaries, strict=True):
            for part in summary.split("; "):
                word, _, some = part.partition(": ")
                for container in (some or containers).split(", "):
                    found[f"{container}: {kind}", decoder] = word
    return found


def main() -> None:
    """Try every decoder that is installed on every file, and print the table."""
    decoders = [name for name in DECODER_NAMES if decoder_fault(name) is None]
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        golden = GoldenFiles(Path(folder))
        for name in decoders:
            videos = opener(name)
            for cell in CELLS.values():
                path, truth = golden.path(cell), golden.truth(cell)
                outcomes[cell.name, name] = outcome(videos, path, truth, singles=singles(name))
    print(table(outcomes))


if __name__ == "__main__":
    main()
