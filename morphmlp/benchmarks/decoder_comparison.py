"""The decoders on a user's own files: cost of a training clip, wrong frames, errors; and which one to choose."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from tabulate import tabulate

from morphmlp.benchmarks.clip_process import ClipProcess, FailedError
from morphmlp.benchmarks.rounds import interleaved
from morphmlp.benchmarks.thumbnails import Thumbnails, wrong_frames
from morphmlp.benchmarks.true_frames import Truth, has_ffmpeg
from morphmlp.data.decoding.backends import DECODER_NAMES, decoder_by_name, decoder_fault
from morphmlp.data.decoding.stored_frames.frame_names import PICTURES
from morphmlp.errors import ManifestError

EXTENSIONS = frozenset(
    [".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv"]
)
"""Endings of files that are taken for videos."""

MOST_FRAMES = 1000
"""Frames from the start of a file that are compared; a plain decode of a whole film would take too long."""
_READS, _READ_FRAMES, _STRIDE = 8, 16, 4
"""Eight reads of 16 frames with stride 4 in each file: 128 frames."""


@dataclass(frozen=True, kw_only=True)
class WrongFrames:
    """What came out of one file."""

    path: str
    wrong: int
    """Frames that aren't those that were asked for, without an error."""
    checked: int


@dataclass(frozen=True, kw_only=True)
class DecoderResult:
    """One decoder over all files."""

    name: str
    version: str
    cpu_ms: float | None
    """Median CPU time of a training clip, all threads, opening included, milliseconds; None where none was made."""
    clips: int
    """Clips that were timed."""
    wrong: int
    checked: int
    worst: WrongFrames | None
    """The file with most wrong frames; None where none was wrong."""
    failed: int
    """Files of which no clip could be extracted."""
    errors: Mapping[str, int]
    """Files by class of the error."""
    example: str
    """`FILE: message` of the first error."""


@dataclass(frozen=True, kw_only=True)
class DecoderComparison:
    """All decoders, in the order in which they were named, and the advice."""

    videos: int
    unreadable: int
    """Files that can't be decoded in any other way either."""
    decoders: tuple[DecoderResult, ...]
    unusable: Mapping[str, str]
    """Decoders that can't be used here, each with its reason."""
    truths: Mapping[str, int]
    """Files by what their frames were held against."""
    advice: str


@dataclass(kw_only=True)
class _Tally:
    """What is known of a decoder so far."""

    cpu_s: list[float] = field(default_factory=list)
    files: list[WrongFrames] = field(default_factory=list)
    errors: dict[str, tuple[str, str]] = field(default_factory=dict)

    def fail(self, path: str, error: FailedError) -> None:
        self.errors.setdefault(path, (error.name, str(error)))


def some_videos(folder: Path, *, limit: int, images: bool = False) -> list[str]:
    """At most `limit` video files of a folder and the folders inside, evenly over the order of their names.

    With `images` image files.

    Raises:
        ManifestError: No such folder, or none of them in it.
    """
    kind, endings = ("images", frozenset(PICTURES)) if images else ("videos", EXTENSIONS)
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder of {kind} (--videos)")
    if limit < 1:
        raise ManifestError(f"--limit: {limit} {kind}; there must be at least one")
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not found:
        raise ManifestError(f"{folder}: holds no {kind} (looked for {' '.join(sorted(endings))})")
    return [found[place * len(found) // limit] for place in range(limit)] if len(found) > limit else found


def compare_decoders(
    videos: Sequence[str],
    *,
    rounds: int = 2,
    timeout_s: float = 60.0,
    on_progress: Callable[[int], None] = lambda _: None,
) -> DecoderComparison:
    """Let every decoder that can be used here, in a process of its own, work on every file.

    Args:
        videos: Files.
        rounds: Clips that are timed of each file.
        timeout_s: Time for one answer, seconds; a decoder that takes longer has failed on that file.
        on_progress: Called with the number of finished files.
    """
    faults = {name: decoder_fault(name) for name in DECODER_NAMES}
    decoders = [name for name in DECODER_NAMES if faults[name] is None]
    tallies = {name: _Tally() for name in decoders}
    unreadable = 0
    truths: Counter[str] = Counter()
    with ExitStack() as stack:
        processes = {name: stack.enter_context(ClipProcess(name, timeout_s=timeout_s)) for name in decoders}
        plain = stack.enter_context(ClipProcess("pyav", timeout_s=timeout_s))
        for number, path in enumerate(videos):
            _warm_up(processes, path)
            _time(processes, tallies, path, rounds=rounds, seed=number)
            truth, video = _truth(plain, path)
            on_progress(number + 1)
            if video is None:
                unreadable += 1
                continue
            truths[truth] += 1
            for name, process in processes.items():
                if path not in tallies[name].errors:
                    _check(process, tallies[name], path, video, seed=number)
    results = tuple(_result(name, tallies[name]) for name in decoders)
    return DecoderComparison(
        videos=len(videos),
        unreadable=unreadable,
        decoders=results,
        unusable={name: fault for name, fault in faults.items() if fault is not None},
        truths=dict(truths),
        advice=advice(results),
    )


def comparison_table(comparison: DecoderComparison) -> str:
    """The decoders side by side, and what else is worth knowing."""
    rows = [
        [
            f"{result.name} {result.version}",
            "-" if result.cpu_ms is None else f"{result.cpu_ms:.1f}",
            f"{result.wrong} of {result.checked}",
            result.failed,
            ", ".join(f"{count} {name}" for name, count in result.errors.items()),
        ]
        for result in comparison.decoders
    ]
    headers = ["decoder", "CPU ms a clip", "wrong frames", "failed files", "errors"]
    lines = [
        tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 3, "left"))
    ]
    lines += [f"frames of {count} files are held against {truth}" for truth, count in comparison.truths.items()]
    lines += [f"{name} can't be used here: {reason}" for name, reason in comparison.unusable.items()]
    if comparison.unreadable:
        lines.append(f"{comparison.unreadable} of {comparison.videos} files can't be read at all")
    lines += [f"{result.name}'s first error: {result.example}" for result in comparison.decoders if result.example]
    return "\n".join(lines)


def advice(results: Sequence[DecoderResult]) -> str:
    """One sentence: which decoder to choose, and what speaks against the others.

    Only one that gives no wrong frame may be used at all. Of those, files that can be read come first, then CPU time.
    """
    able = [result for result in results if result.cpu_ms is not None]
    if not able:
        return "no decoder could extract a clip from any of these files"
    none = [f"{result.name} could read none of the files" for result in results if result.cpu_ms is None]
    right = [result for result in able if not result.wrong]
    if not right:
        faults = [_wrongness(result) for result in able]
        return "; ".join(["no decoder may be used on these files, since none is right", *faults, *none])
    best = min(right, key=lambda result: (result.failed, result.cpu_ms))
    cheapest = all((best.cpu_ms or 0) <= (result.cpu_ms or 0) for result in able)
    praise = f"{best.name}: no wrong frames"
    praise += " and the cheapest" if cheapest else f" at {best.cpu_ms:.0f} ms a clip"
    if best.failed > min(result.failed for result in able):
        praise += f", though it failed on {best.failed} files"
    others = [_objection(result, best) for result in able if result is not best]
    return "; ".join([praise, *others, *none])


def _objection(result: DecoderResult, best: DecoderResult) -> str:
    if result.wrong:
        return f"{_wrongness(result)}, and must not be used on these files"
    assert result.cpu_ms is not None
    assert best.cpu_ms is not None
    times = f"{result.cpu_ms / best.cpu_ms:.2f} times its CPU time"
    if result.failed > best.failed:
        return f"{result.name} failed on {result.failed} files ({times})"
    return f"{result.name} takes {times}"


def _wrongness(result: DecoderResult) -> str:
    assert result.worst is not None
    worst = result.worst
    return f"{result.name} returned {worst.wrong} wrong frames of {worst.checked} in {Path(worst.path).name}"


def _truth(process: ClipProcess, path: str) -> tuple[Truth, Thumbnails | None]:
    """A file's frames as no decoder under test reads them, and by what; None where it can't be read."""
    ways: tuple[Truth, ...] = ("FFmpeg's command", "a plain decode")
    for way in ways if has_ffmpeg() else ways[1:]:
        try:
            return way, process.watch(path, most_frames=MOST_FRAMES, by=way)
        except FailedError:
            continue  # an old command lacks options, a strict one refuses what can be read
    return ways[1], None


def _warm_up(processes: Mapping[str, ClipProcess], path: str) -> None:
    """Let a process that has just started import what it needs before it's timed."""
    for process in processes.values():
        if not process.running:
            try:
                process.extract(path, kind="train", video_id="warm-up", epoch=0)
            except FailedError:
                continue


def _time(
    processes: Mapping[str, ClipProcess], tallies: Mapping[str, _Tally], path: str, *, rounds: int, seed: int
) -> None:
    for epoch, name in interleaved(list(processes), rounds, seed=seed):
        if path in tallies[name].errors:
            continue  # it may have cost a minute; once is enough
        try:
            cost = processes[name].extract(path, kind="train", video_id=path, epoch=epoch)
        except FailedError as error:
            tallies[name].fail(path, error)
        else:
            tallies[name].cpu_s.append(cost.cpu_s)


def _check(process: ClipProcess, tally: _Tally, path: str, video: Thumbnails, *, seed: int) -> None:
    """Compare clips from random places of a file with its plain decode."""
    rng = random.Random(seed)
    wrong = checked = 0
    for _ in range(_READS):
        start = rng.randrange(max(len(video) - (_READ_FRAMES - 1) * _STRIDE, 1))
        indices = np.minimum(start + _STRIDE * np.arange(_READ_FRAMES), len(video) - 1)
        try:
            wrong += wrong_frames(process.look(path, indices.tolist()), indices, video)
        except FailedError as error:
            tally.fail(path, error)
            return
        checked += len(indices)
    tally.files.append(WrongFrames(path=path, wrong=wrong, checked=checked))


def _result(name: str, tally: _Tally) -> DecoderResult:
    worst = max(tally.files, key=lambda file: file.wrong, default=None)
    first = next(iter(tally.errors.items()), None)
    return DecoderResult(
        name=name,
        version=decoder_by_name(name).version,
        cpu_ms=1000 * median(tally.cpu_s) if tally.cpu_s else None,
        clips=len(tally.cpu_s),
        wrong=sum(file.wrong for file in tally.files),
        checked=sum(file.checked for file in tally.files),
        worst=worst if worst is not None and worst.wrong else None,
        failed=len(tally.errors),
        errors=dict(Counter(kind for kind, _ in tally.errors.values())),
        example="" if first is None else f"{first[0]}: {first[1][1]}",
    )
