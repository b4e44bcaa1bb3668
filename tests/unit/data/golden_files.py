"""The files of the golden set: every usual container, codec and order of frames, made by FFmpeg's command.

The truth of each file is what the same command decodes of it from start to end. It uses nothing of PyAV.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from morphmlp.data.decoding.protocol import Frames

NUM_FRAMES, HEIGHT, WIDTH = 30, 96, 128

_X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -x264-params threads=1:keyint=12:scenecut=0:b-adapt=0"
_X265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none:pools=1:frame-threads=1:keyint=12"
_X265 += ":min-keyint=12:scenecut=0:b-adapt=0"
_MPEG = "-g 12 -q:v 3 -threads 1"
CODECS = {
    "h264": {
        "no B-frames": f"{_X264}:bframes=0",
        "B-frames": f"{_X264}:bframes=2:b-pyramid=none",
        "B-pyramid": f"{_X264}:bframes=5:b-pyramid=normal",
        "open groups": f"{_X264}:bframes=3:open-gop=1",
        "interlaced": f"{_X264}:bframes=2:tff=1",
    },
    "hevc": {
        "no B-frames": f"{_X265}:bframes=0:open-gop=0",
        "B-frames": f"{_X265}:bframes=2:b-pyramid=0:open-gop=0",
        "B-pyramid": f"{_X265}:bframes=4:b-pyramid=1:open-gop=0",
        "open groups": f"{_X265}:bframes=3:open-gop=1",
    },
    "mpeg4": {
        "no B-frames": f"-c:v mpeg4 -bf 0 {_MPEG}",
        "B-frames": f"-c:v mpeg4 -bf 2 {_MPEG}",
        "packed B-frames": f"-c:v libxvid -bf 2 {_MPEG}",
    },
    "mpeg2": {"no B-frames": f"-c:v mpeg2video -bf 0 {_MPEG}", "B-frames": f"-c:v mpeg2video -bf 2 {_MPEG}"},
    "mpeg1": {"no B-frames": f"-c:v mpeg1video -bf 0 {_MPEG}", "B-frames": f"-c:v mpeg1video -bf 2 {_MPEG}"},
    "vp8": {"hidden frames": "-c:v libvpx -g 12 -b:v 800k -deadline realtime -cpu-used 8 -auto-alt-ref 1 -threads 1"},
    "vp9": {"hidden frames": "-c:v libvpx-vp9 -g 12 -b:v 400k -deadline good -cpu-used 8 -lag-in-frames 10 -threads 1"},
    "av1": {"hidden frames": "-c:v libsvtav1 -g 12 -preset 10 -svtav1-params lp=1"},
    "mjpeg": {"no B-frames": "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p"},
    "flv1": {"no B-frames": f"-c:v flv {_MPEG}"},
    "h263": {"no B-frames": f"-c:v h263 {_MPEG}"},
    "msmpeg4": {"no B-frames": f"-c:v msmpeg4 {_MPEG}"},
    "wmv2": {"no B-frames": f"-c:v wmv2 {_MPEG}"},
    "ffv1": {"no B-frames": "-c:v ffv1 -pix_fmt bgr0 -threads 1"},
    "prores": {"no B-frames": "-c:v prores_ks"},
    "theora": {"no B-frames": "-c:v libtheora -g 12 -q:v 7"},
}
"""Options of the encoder by codec and kind of frame order."""

CONTAINERS = {
    "mp4": ("h264", "hevc", "mpeg4", "mpeg2", "vp9", "av1"),
    "mkv": ("h264", "hevc", "mpeg4", "mpeg2", "vp8", "vp9", "av1", "mjpeg", "ffv1", "theora"),
    "webm": ("vp8", "vp9", "av1"),
    "avi": ("h264", "mpeg4", "vp8", "mjpeg", "msmpeg4", "ffv1"),
    "mov": ("h264", "hevc", "mpeg4", "mjpeg", "prores"),
    "ts": ("h264", "hevc", "mpeg4", "mpeg2"),
    "mpg": ("mpeg1", "mpeg2", "h264"),
    "flv": ("flv1", "h264"),
    "3gp": ("h263", "h264", "mpeg4"),
    "wmv": ("wmv2",),
    "ogv": ("theora",),
}
"""Codecs by container, which is the ending of the file's name."""

_LEFT = 0.8
"""Of the bytes of a file that is cut short."""
_NORMAL = ("h264", "B-frames")
_TURNS = {
    f"{degrees} degrees{', mirrored' if mirrored else ''}": f"-display_rotation {degrees}"
    + (" -display_hflip" if mirrored else "")
    for degrees in (0, 90, 180, 270)
    for mirrored in (False, True)
}
_FULL = "-vf scale=out_range=full -color_range pc"
_RANGES = {
    "h264, full range": (f"{_FULL} {CODECS['h264']['B-frames']}", ("mp4", "mkv", "avi", "mov", "ts", "flv")),
    "hevc, full range": (f"{_FULL} {CODECS['hevc']['B-frames']}", ("mp4", "mkv", "ts")),
    "vp9, full range": (f"{_FULL} {CODECS['vp9']['hidden frames']} -pix_fmt yuv420p", ("webm", "mp4")),
    "h264, RGB": ("-c:v libx264rgb -g 12 -pix_fmt rgb24 -threads 1", ("mp4", "mkv")),
    "h264, grey": (f"{CODECS['h264']['B-frames']} -pix_fmt gray", ("mp4", "mkv")),
    "h264, 10 bit": (f"{CODECS['h264']['B-frames']} -pix_fmt yuv420p10le", ("mp4", "mkv")),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One file of the set."""

    group: str
    """`coding`, `orientation`, `range`, `cut short` or `joined`."""
    container: str
    kind: str
    """What is in it, as in `h264, B-frames`."""
    encode: str
    """FFmpeg's options."""
    turn: str = ""
    """Options of a copy that asks a player to turn the frames."""
    copies_avi: bool = False
    """Encoded as AVI, and copied from there without decoding."""
    share: float = 1.0
    """What is left of the file's bytes; 2: the file twice, as recordings are joined."""

    @property
    def name(self) -> str:
        """Unique in the set."""
        return f"{self.container}: {self.kind}"


def _codings() -> Iterator[Cell]:
    for container, codecs in CONTAINERS.items():
        for codec in codecs:
            for order, options in CODECS[codec].items():
                if order == "packed B-frames" and container != "avi":
                    continue
                kind = f"{codec}, {order}"
                yield Cell(group="coding", container=container, kind=kind, encode=options)
    for container in ("mp4", "mkv"):
        for codec, order in (("h264", "B-frames"), ("h264", "B-pyramid"), ("mpeg4", "packed B-frames")):
            kind = f"{codec}, {order}, copied from avi"
            yield Cell(group="coding", container=container, kind=kind, encode=CODECS[codec][order], copies_avi=True)


def _orientations() -> Iterator[Cell]:
    codec, order = _NORMAL
    for container in ("mp4", "mkv", "mov", "3gp"):
        for words, options in _TURNS.items():
            yield Cell(group="orientation", container=container, kind=words, encode=CODECS[codec][order], turn=options)
    for words in ("90 degrees", "90 degrees, mirrored"):
        kind, options = f"full range, {words}", f"{_FULL} {CODECS[codec][order]}"
        yield Cell(group="orientation", container="mp4", kind=kind, encode=options, turn=_TURNS[words])


def _ranges() -> Iterator[Cell]:
    for kind, (options, containers) in _RANGES.items():
        for container in containers:
            yield Cell(group="range", container=container, kind=kind, encode=options)


def _cuts() -> Iterator[Cell]:
    for container, codecs in CONTAINERS.items():
        codec = "h264" if "h264" in codecs else codecs[0]
        encode = CODECS[codec].get("B-frames") or next(iter(CODECS[codec].values()))
        yield Cell(group="cut short", container=container, kind="cut short", encode=encode, share=_LEFT)
        if container in ("mp4", "mov", "3gp"):
            encode += " -movflags faststart"
            kind = "cut short, index in front"
            yield Cell(group="cut short", container=container, kind=kind, encode=encode, share=_LEFT)


def _joined() -> Iterator[Cell]:
    for container, codec in (("ts", "h264"), ("ts", "mpeg2"), ("mpg", "mpeg2")):
        kind = f"{codec}, two files joined"
        yield Cell(group="joined", container=container, kind=kind, encode=CODECS[codec]["B-frames"], share=2)


CELLS = {cell.name: cell for cell in (*_codings(), *_orientations(), *_ranges(), *_cuts(), *_joined())}


class GoldenFiles:
    """Writes the files as they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Take the folder for files."""
        self._folder = folder
        self._source = folder / "pictures.rgb"
        self._source.write_bytes(_pictures().tobytes())
        self._paths: dict[tuple[str, ...], Path] = {}
        self.truth = cache(lambda cell: ffmpeg_frames(self.path(cell)))

    def path(self, cell: Cell) -> Path:
        """The cell's file."""
        encoded = self._encoded(cell.encode, "avi" if cell.copies_avi else cell.container)
        path = self._folder / f"{len(self._paths)}.{cell.container}"
        if cell.turn:
            return self._made((cell.name,), path, *cell.turn.split(), "-i", encoded, "-c", "copy")
        if cell.copies_avi:
            return self._made((cell.name,), path, "-fflags", "+genpts", "-i", encoded, "-c", "copy")
        if cell.share != 1:
            content = encoded.read_bytes()
            path = encoded.with_stem(f"{encoded.stem}_{cell.share}")
            path.write_bytes((2 * content)[: int(len(content) * cell.share)])
            return path
        return encoded

    def _encoded(self, options: str, container: str) -> Path:
        source = f"-f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r 30 -i {self._source}".split()
        path = self._folder / f"{len(self._paths)}.{container}"
        return self._made((options, container), path, *source, *options.split())

    def _made(self, key: tuple[str, ...], path: Path, *options: object) -> Path:
        if key not in self._paths:
            self._paths[key] = ffmpeg_file(path, *options)
        return self._paths[key]


def _pictures() -> Frames:
    """Blocks that drift eight columns a frame: strong in light, weak in colour, whose edges every library rounds."""
    rng = np.random.default_rng(0)
    size = (HEIGHT // 8, WIDTH // 8 + NUM_FRAMES)
    noise = rng.integers(24, 232, (*size, 1)) + rng.integers(-24, 24, (*size, 3))
    wide = noise.astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([wide[:, 8 * number : 8 * number + WIDTH] for number in range(NUM_FRAMES)])


def ffmpeg_file(path: Path, *options: object) -> Path:
    """A file that FFmpeg's command makes."""
    made = _ffmpeg("-v", "error", *map(str, options), str(path))
    assert not made.returncode, made.stderr.decode(errors="replace")
    return path


def ffmpeg_frames(path: Path, stream: str = "0:v:0") -> Frames | None:
    """All frames as FFmpeg's command decodes them, `[t h w c]`; None where it gives none."""
    said = _ffmpeg(
        *("-v", "info", "-i", str(path), "-map", stream, "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
    )
    size = re.search(r"Video: rawvideo.*?, rgb24.*?, (\d+)x(\d+)", said.stderr.decode(errors="replace"))
    if size is None or not said.stdout:
        return None
    width, height = map(int, size.groups())
    return np.frombuffer(said.stdout, np.uint8).reshape(-1, height, width, 3)


def _ffmpeg(*options: str) -> "subprocess.CompletedProcess[bytes]":
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", *options]
    return subprocess.run(command, capture_output=True, check=False)
