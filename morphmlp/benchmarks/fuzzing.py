"""What becomes of damaged videos: seeded damage to small files, each opened, read and scanned as in a run.

Every file is met through `IsolatedVideos`, so that what a codec does to its process is counted and costs nothing else.
"""

import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from morphmlp.benchmarks.mutations import MUTATIONS
from morphmlp.data.decoding.isolation.child import make_decoder
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.protocol import Frames, VideoOpener
from morphmlp.data.decoding.stored_frames.frame_stores import pack_frames
from morphmlp.errors import DecodeError, DecoderCrashError, DecodeTimeoutError
from morphmlp.progress import Progress

NUM_FRAMES, HEIGHT, WIDTH = 48, 96, 128
CLIP_FRAMES = 16
"""Frames read from each file, evenly over its length."""

_CODINGS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    # name: codec, its options, the container's options
    "h264.mp4": ("libx264", {"g": "12", "bf": "3"}, {}),
    "h264_faststart.mp4": ("libx264", {"g": "12", "bf": "3"}, {"movflags": "faststart"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}, {}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=12:bframes=3:pools=1"}, {}),
    "mpeg4.avi": ("mpeg4", {"g": "12"}, {}),
}
_PACK = "frames.zip"


class Outcome(StrEnum):
    """What became of a damaged file."""

    RIGHT = "right"
    """The clip is what the sound file gives."""
    ANOTHER_LENGTH = "another_length"
    """So is each frame of the clip, but the video has more or fewer frames than the sound one, and nobody says so."""
    CONCEALED = "concealed"
    """The decoder counted frames that aren't what was encoded."""
    QUARANTINED = "quarantined"
    """A `DecodeError`."""
    ALTERED = "altered"
    """Frames differ, and the decoder counted none: what nobody can know without the sound file."""
    TIMED_OUT = "timed_out"
    """The decoder was ended for taking too long."""
    CRASHED = "crashed"
    """The decoder's process died."""


@dataclass(frozen=True, kw_only=True)
class FuzzResult:
    """How many files ended in which way."""

    decoder: str
    decoder_version: str
    seed: int
    files: int
    outcomes: dict[str, int]
    """By outcome, all of them."""
    by_video: dict[str, dict[str, int]]
    """Outcomes of the damaged copies of each sound video."""
    by_mutation: dict[str, dict[str, int]]
    """Outcomes of each kind of damage."""
    altered_seen_by_scan: int
    """Altered files of which a whole scan finds damaged frames, or breaks off."""
    unnoticed_when_verified: int
    """Files that are altered or of another length, and are still not noticed where the manifest has the sound
    file's checksum, as `prepare.py verify` notes it."""
    reasons: dict[str, int]
    """Reasons of timeouts and crashes."""
    slowest_s: float
    """Longest time that a file took."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Sound videos that this decoder can't be measured with, and why."""


@dataclass(frozen=True, kw_only=True)
class SoundVideo:
    """An undamaged video and the frames that the decoder gives of it."""

    name: str
    data: bytes
    frames: Frames
    """`[t h w c]`, all of them."""

    @property
    def crc32(self) -> int:
        """As a verified manifest has it."""
        return zlib.crc32(self.data)


def fuzz(*, decoder: str, files: int, seed: int, progress: Progress, timeout_s: float = 10.0) -> FuzzResult:
    """Damage `files` files, meet each, and count.

    Args:
        decoder: Name of the decoder.
        files: How many damaged files; they go round the sound videos, and kinds of damage are drawn.
        seed: Root of every draw.
        progress: Shows how far it is.
        timeout_s: Time for one file, seconds.

    Raises:
        DecodeError: The decoder reads not one of the sound video files.
    """
    with TemporaryDirectory(prefix="fuzz-") as folder, IsolatedVideos(decoder, Limits(timeout_s=timeout_s)) as videos:
        sound, left_out = sound_videos(Path(folder), videos)
        if {video.name for video in sound} <= {_PACK}:
            raise DecodeError(f"{decoder} reads not one sound video file: {next(iter(left_out.values()))}")
        counter = _Counter()
        progress.phase("damaged files", total=files, unit="files")
        for number in range(files):
            counter.count(videos, sound[number % len(sound)], number=number, seed=seed, folder=Path(folder))
            progress.update(number + 1, note=f"{counter.outcomes[Outcome.CRASHED]} crashes")
    return counter.result(decoder, files=files, seed=seed, left_out=left_out)


def sound_videos(folder: Path, videos: VideoOpener) -> tuple[list[SoundVideo], dict[str, str]]:
    """The undamaged videos that a decoder reads the same way twice, and the reasons against the others."""
    sound, left_out = [], {}
    for name in [*_CODINGS, _PACK]:
        path = folder / f"sound_{name}"
        try:
            _write(path, name)
            frames = videos.open(str(path), num_frames=None).read(range(NUM_FRAMES)).frames.copy()
            again = videos.open(str(path), num_frames=None).read(clip_indices(NUM_FRAMES))
        except (DecodeError, IndexError, av.codec.codec.UnknownCodecError) as error:
            left_out[name] = f"{type(error).__name__}: {error}"
            continue
        if again.concealed or not np.array_equal(again.frames, frames[clip_indices(NUM_FRAMES)]):
            left_out[name] = "gives other frames when only some are read"
            continue
        sound.append(SoundVideo(name=name, data=path.read_bytes(), frames=frames))
    return sound, left_out


def clip_indices(num_frames: int) -> list[int]:
    """The frames that are read of a video with so many."""
    return [int(index) for index in np.linspace(0, num_frames - 1, CLIP_FRAMES).round()]


def outcome(videos: VideoOpener, path: str, sound: SoundVideo) -> tuple[Outcome, str]:
    """Open and read a damaged file as a run does; the outcome and, of an error, its reason."""
    try:
        reader = videos.open(path, num_frames=None)
        indices = clip_indices(reader.info.num_frames)
        decoded = reader.read(indices)
    except DecodeTimeoutError as error:
        return Outcome.TIMED_OUT, str(error)
    except DecoderCrashError as error:
        return Outcome.CRASHED, str(error)
    except DecodeError as error:
        return Outcome.QUARANTINED, str(error)
    if decoded.concealed:
        return Outcome.CONCEALED, ""
    if indices[-1] >= len(sound.frames) or not np.array_equal(decoded.frames, sound.frames[indices]):
        return Outcome.ALTERED, ""
    return Outcome.RIGHT if reader.info.num_frames == len(sound.frames) else Outcome.ANOTHER_LENGTH, ""


def scan_outcome(videos: VideoOpener, path: str) -> tuple[Outcome | None, str]:
    """Scan a damaged file as a check of a whole data set does; None where the scan finds nothing."""
    try:
        return (Outcome.CONCEALED if videos.open(path, num_frames=None).scan() else None), ""
    except DecodeTimeoutError as error:
        return Outcome.TIMED_OUT, str(error)
    except DecoderCrashError as error:
        return Outcome.CRASHED, str(error)
    except DecodeError as error:
        return Outcome.QUARANTINED, str(error)


class _Counter:
    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self._by_video: dict[str, Counter[Outcome]] = {}
        self._by_mutation: dict[str, Counter[Outcome]] = {name: Counter() for name in MUTATIONS}
        self._reasons: Counter[str] = Counter()
        self._seen_by_scan = 0
        self._unnoticed = 0
        self._slowest_s = 0.0

    def count(self, videos: VideoOpener, sound: SoundVideo, *, number: int, seed: int, folder: Path) -> None:
        rng = np.random.default_rng([seed, number])
        mutation = sorted(MUTATIONS)[rng.integers(len(MUTATIONS))]
        path = folder / f"damaged_{sound.name}"
        path.write_bytes(MUTATIONS[mutation](rng, sound.data))
        start = time.monotonic()
        ending, reason = outcome(videos, str(path), sound)
        scanned, scan_reason = scan_outcome(videos, str(path))
        self._slowest_s = max(self._slowest_s, time.monotonic() - start)
        if ending is Outcome.ALTERED and scanned is not None:
            self._seen_by_scan += 1
        if ending in _UNNOTICED and not _noticed_when_verified(videos, str(path), sound):
            self._unnoticed += 1
        if scanned in _NOT_SURVIVED and ending not in _NOT_SURVIVED:
            ending, reason = scanned, scan_reason
        if ending in _NOT_SURVIVED:
            self._reasons[reason] += 1
        self.outcomes[ending] += 1
        self._by_video.setdefault(sound.name, Counter())[ending] += 1
        self._by_mutation[mutation][ending] += 1

    def result(self, decoder: str, *, files: int, seed: int, left_out: dict[str, str]) -> FuzzResult:
        return FuzzResult(
            decoder=decoder,
            decoder_version=make_decoder(decoder).version,
            seed=seed,
            files=files,
            outcomes=_plain(self.outcomes),
            by_video={name: _plain(counts) for name, counts in self._by_video.items()},
            by_mutation={name: _plain(counts) for name, counts in self._by_mutation.items()},
            altered_seen_by_scan=self._seen_by_scan,
            unnoticed_when_verified=self._unnoticed,
            reasons=dict(self._reasons.most_common()),
            slowest_s=self._slowest_s,
            left_out=left_out,
        )


_NOT_SURVIVED = (Outcome.TIMED_OUT, Outcome.CRASHED)
_UNNOTICED = (Outcome.ALTERED, Outcome.ANOTHER_LENGTH)


def _noticed_when_verified(videos: VideoOpener, path: str, sound: SoundVideo) -> bool:
    try:
        videos.open(path, num_frames=None, crc32=sound.crc32)
    except DecodeError:
        return True
    return False


def _plain(counts: Counter[Outcome]) -> dict[str, int]:
    return {str(ending): counts[ending] for ending in Outcome}


def _write(path: Path, name: str) -> None:
    if name == _PACK:
        frames = path.with_suffix("")
        frames.mkdir()
        for number, picture in enumerate(_pictures(), start=1):
            Image.fromarray(picture).save(frames / f"{number:05}.jpg", quality=90)
        pack_frames(frames, path)
        return
    codec, options, container_options = _CODINGS[name]
    with av.open(str(path), "w", options=container_options) as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=30, options=options))
        stream.pix_fmt, stream.height, stream.width = "yuv420p", HEIGHT, WIDTH
        stream.codec_context.thread_count = 1
        for picture in _pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _pictures() -> Iterator[Frames]:
    """Soft noise that drifts two columns a frame, so that no two frames are alike."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8 + NUM_FRAMES, 3), dtype=np.uint8)
    wide = noise.repeat(8, axis=0).repeat(8, axis=1)
    for number in range(NUM_FRAMES):
        yield wide[:, 2 * number : 2 * number + WIDTH].copy()


def in_words(result: FuzzResult) -> Sequence[str]:
    """The result as lines: all files, then each video."""
    shares = ", ".join(f"{count} {ending.replace('_', ' ')}" for ending, count in result.outcomes.items() if count)
    lines = [f"{result.files} damaged files with {result.decoder} {result.decoder_version}: {shares}"]
    for name, counts in [*result.by_video.items(), *result.by_mutation.items()]:
        found = ", ".join(f"{count} {ending.replace('_', ' ')}" for ending, count in counts.items() if count)
        lines.append(f"  {name.replace('_', ' ')}: {found}")
    lines.append(f"a whole scan finds {result.altered_seen_by_scan} of the {result.outcomes[Outcome.ALTERED]} altered")
    unnoticed = sum(result.outcomes[ending] for ending in _UNNOTICED)
    lines.append(
        f"with a verified manifest's checksum {result.unnoticed_when_verified} of the {unnoticed} that are altered "
        "or of another length go unnoticed"
    )
    lines.extend(f"{count} x {reason}" for reason, count in result.reasons.items())
    lines.extend(f"left out: {name}, {reason}" for name, reason in result.left_out.items())
    return lines
