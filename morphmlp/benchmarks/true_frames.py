"""A file's frames one after the other, as no decoder of this project reads them: what those are held against.

By FFmpeg's own command, or by a plain decode from start to end where none is found. The plain decode shares with the
decoders which of several streams is the video, and how its frames are laid to be shown; nothing else.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Literal, cast

import av
import numpy as np

from morphmlp.data.decoding.protocol import Frames
from morphmlp.data.decoding.pyav.orientation import orientation_of
from morphmlp.data.decoding.pyav.packets import open_video
from morphmlp.errors import DecodeError

Truth = Literal["FFmpeg's command", "a plain decode"]


def has_ffmpeg() -> bool:
    """Whether there is an `ffmpeg` on the PATH."""
    return shutil.which("ffmpeg") is not None


def true_frames(path: str, *, by: Truth, most: int) -> Iterator[Frames]:
    """The first frames of a file as they are shown, `[h w c]` each.

    Raises:
        DecodeError: There is no video in it, or FFmpeg's command fails before a first frame.
    """
    yield from islice(_by_ffmpeg(path) if by == "FFmpeg's command" else plain_frames(path), most)


def plain_frames(path: str | Path) -> Generator[Frames, None, None]:
    """Frames as they are shown, `[h w c]`; of a damaged file those that come out.

    Raises:
        DecodeError: It can't be opened, or has no video.
    """
    container, stream = open_video(str(path))
    with container:
        for packet in container.demux(stream):
            try:
                decoded = stream.decode(packet)
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                picture = frame.reformat(format="rgb24", threads=1).to_ndarray()
                yield orientation_of(frame).shown(cast(Frames, picture))


def _by_ffmpeg(path: str) -> Iterator[Frames]:
    container, stream = open_video(path)
    with container:
        number = stream.index
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", f"file:{path}", "-map", f"0:{number}"]
    command += ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    count = 0
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process:
        assert process.stdout is not None
        try:
            while (picture := _picture(process.stdout)) is not None:
                count += 1
                yield picture
        finally:
            process.kill()
        if not count:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise DecodeError(f"FFmpeg's command gives no frame: {lines[-1] if lines else 'without a word'}")


def _picture(stream: IO[bytes]) -> Frames | None:
    """The next picture of a row of PPM files; None at its end."""
    if not stream.readline():
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()
    data = stream.read(height * width * 3)
    return np.frombuffer(data, np.uint8).reshape(height, width, 3) if len(data) == height * width * 3 else None
