"""Copies of every kind of source, held against what FFmpeg's command shows of both."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from morphmlp.preparation.transcode_settings import TranscodeSettings
from morphmlp.preparation.transcoding import transcode

NUM_FRAMES = 12
BLOCK = 8
SAME_LEVELS = 4.0
"""Mean difference of block means up to which two pictures are the same. The same in another range: 9 and more."""
_X264 = "-c:v libx264 -preset veryfast -crf 10 -pix_fmt yuv420p -g 6 -bf 2 -threads 1"
_FULL = "-vf scale=out_range=full -color_range pc"
_HDR = "-color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc"
_BT709 = "-color_primaries bt709 -color_trc bt709 -colorspace bt709"


@dataclass(frozen=True, kw_only=True)
class Source:
    """How one is made."""

    name: str
    options: str
    size: tuple[int, int] = (96, 64)
    remux: str = ""
    """Options of a second step that copies the coded frames, if any."""
    is_joined: bool = False
    """Whether the file is there twice, one behind the other, as recordings are joined."""
    stream: int = 0
    """Which of its video streams is the video."""
    has_times: bool = True
    """Whether FFmpeg's command has a time of its own for each frame."""


SOURCES = {
    "plain": Source(name="a.mp4", options=_X264),
    "full range": Source(name="a.mp4", options=f"{_FULL} {_X264} -pix_fmt yuvj420p"),
    "full range, VP9": Source(name="a.webm", options=f"{_FULL} -c:v libvpx-vp9 -cpu-used 8 -b:v 1M -pix_fmt yuv420p"),
    "full range, Motion JPEG": Source(name="a.avi", options="-c:v mjpeg -q:v 2 -pix_fmt yuvj422p"),
    "full range, 10 bit": Source(name="a.mp4", options=f"{_FULL} {_X264} -pix_fmt yuv420p10le"),
    "10 bit": Source(name="a.mp4", options=f"{_X264} -pix_fmt yuv420p10le"),
    "10 bit, BT.2020": Source(
        name="a.mkv", options=f"-vf scale=out_color_matrix=bt2020 {_X264} -pix_fmt yuv420p10le {_HDR}"
    ),
    "BT.709": Source(name="a.mp4", options=f"-vf scale=out_color_matrix=bt709 {_X264} {_BT709}"),
    "grey": Source(name="a.mp4", options=f"{_X264} -pix_fmt gray"),
    "4:4:4": Source(name="a.mp4", options=f"{_X264} -pix_fmt yuv444p"),
    "RGB": Source(name="a.mp4", options="-c:v libx264rgb -crf 10 -g 6 -threads 1"),
    "RGB, lossless": Source(name="a.mkv", options="-c:v ffv1 -pix_fmt bgr0"),
    "alpha": Source(name="a.mov", options="-c:v png -pix_fmt rgba"),
    "alpha, 12 bit": Source(name="a.mov", options="-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le"),
    "palette": Source(name="a.gif", options=""),
    "odd size": Source(name="a.mp4", options=f"{_X264} -pix_fmt yuv444p", size=(95, 63)),
    "odd size, 4:2:0": Source(
        name="a.webm", options="-c:v libvpx-vp9 -cpu-used 8 -b:v 1M -pix_fmt yuv420p", size=(95, 63)
    ),
    "interlaced": Source(name="a.mpg", options="-c:v mpeg2video -q:v 2 -g 6 -bf 2 -flags +ildct+ilme"),
    "negative start": Source(
        name="a.mkv", options=f"{_X264} -output_ts_offset -0.2 -avoid_negative_ts disabled", has_times=False
    ),
    "late start": Source(name="a.ts", options=f"{_X264} -output_ts_offset 50000"),
    "fine clock": Source(name="a.mp4", options=f"{_X264} -video_track_timescale 10000000"),
    "coarse clock": Source(name="a.mp4", options=f"{_X264} -video_track_timescale 30"),
    "variable rate": Source(name="a.mkv", options=f"-vf select='not(mod(n\\,3))+lt(n\\,6)' -fps_mode vfr {_X264}"),
    "edit list": Source(name="a.mp4", options=_X264, remux="-ss 0.1 -c copy"),
    "small stream in front": Source(
        name="a.mkv", options=f"-map 0 -map 0 {_X264} -filter:v:0 scale=48:32 -filter:v:1 hue=h=40", stream=1
    ),
    "joined": Source(name="a.ts", options=_X264, is_joined=True, has_times=False),
    "B-frames in AVI": Source(name="a.avi", options=_X264, has_times=False),
    "packed B-frames in AVI": Source(name="a.avi", options="-c:v libxvid -q:v 2 -g 6 -bf 2"),
    **{
        f"turned by {degrees}{', mirrored' * bool(mirror)}": Source(
            name="a.mp4", options=_X264, remux=f"-display_rotation {degrees} {mirror} -c copy"
        )
        for degrees in (0, 90, 180, 270)
        for mirror in ("", "-display_hflip")
    },
}


def write_source(source: Source, folder: Path) -> Path:
    """Encode one; where it's copied in a second step, that copy."""
    width, height = source.size
    pictures = folder / "pictures.rgb"
    pictures.write_bytes(_pictures(width, height).tobytes())
    coded = folder / source.name
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r 30 -i {pictures}"
    _ffmpeg(*raw.split(), *source.options.split(), str(coded))
    if source.is_joined:
        coded.write_bytes(2 * coded.read_bytes())
    if not source.remux:
        return coded
    before, _, after = source.remux.rpartition("-c copy")
    remuxed = coded.with_stem("b")
    _ffmpeg(*before.split(), "-i", str(coded), "-c", "copy", *after.split(), str(remuxed))
    return remuxed


def shown(path: Path, *, stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All frames of a file, `[t h w c]`, and their times from the first one on, seconds."""
    times = path.with_suffix(".times")
    passing = ("-map", f"0:v:{stream}", "-fps_mode", "passthrough", "-pix_fmt", "rgb24")
    done = _ffmpeg(
        *("-v", "info", "-copyts", "-i", str(path)),
        *(*passing, "-f", "framecrc", str(times)),
        *(*passing, "-f", "rawvideo", "-"),
    )
    text = times.read_text()
    unit = re.search(r"#tb 0: (\d+)/(\d+)", text)
    width, height = map(int, re.search(r"#dimensions 0: (\d+)x(\d+)", text).groups())
    ticks = np.array([int(line.split(",")[2]) for line in text.splitlines() if not line.startswith("#")])
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    return frames, (ticks - ticks[0]) * int(unit[1]) / int(unit[2])


def _ffmpeg(*options: str) -> "subprocess.CompletedProcess[bytes]":
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", "-v", "error", *options]
    done = subprocess.run(command, capture_output=True, check=False)
    assert not done.returncode, done.stderr.decode(errors="replace")
    return done


def _pictures(width: int, height: int) -> np.ndarray:
    """Blocks from black to white in weak colours, that drift by a block a frame."""
    rng = np.random.default_rng(0)
    blocks = (-(-height // 8), -(-width // 8) + NUM_FRAMES)
    light = rng.choice([0, 32, 96, 160, 224, 255], (*blocks, 1)) + rng.integers(-24, 24, (*blocks, 3))
    wide = light.clip(0, 255).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([wide[:height, 8 * number : 8 * number + width] for number in range(NUM_FRAMES)])


def block_means(frames: np.ndarray) -> np.ndarray:
    count, height, width, _ = frames.shape
    down, across = height // BLOCK, width // BLOCK
    whole = frames[:, : down * BLOCK, : across * BLOCK].astype(float)
    return whole.reshape(count, down, BLOCK, across, BLOCK, 3).mean(axis=(2, 4))


@pytest.mark.parametrize("kind", SOURCES)
def test_a_copy_shows_what_its_source_does(kind, tmp_path):
    kept = SOURCES[kind]
    source = write_source(kept, tmp_path)
    copy = transcode(str(source), tmp_path / "copy.mp4", TranscodeSettings(crf=10))
    wanted, times = shown(source, stream=kept.stream)
    found, copied_times = shown(tmp_path / "copy.mp4")
    assert copy.lost == 0
    assert len(found) == len(wanted) == copy.info.num_frames
    assert found.shape[1:3] == tuple(side // 2 * 2 for side in wanted.shape[1:3])
    assert np.abs(block_means(wanted) - block_means(found)).mean(axis=(1, 2, 3)).max() < SAME_LEVELS
    if kept.has_times:
        assert copied_times == pytest.approx(times, abs=0.5 / 30)
