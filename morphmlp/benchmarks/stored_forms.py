"""Videos that measurements work on, made on the spot: real-size mp4 files, and the same frames in other forms."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from morphmlp.data.decoding.protocol import Frames
from morphmlp.data.decoding.stored_frames.frame_stores import pack_frames
from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.kinetics_layout import FRAME_RATE, write_realistic_videos
from morphmlp.preparation.transcode_settings import TranscodeSettings
from morphmlp.preparation.transcoding import transcode

StoredForm = Literal["mp4", "frame_folder", "packed", "webm", "prepared"]

NUM_VIDEOS = 16
"""340x256, 10 s each; some 10 s to make, 7 MB."""
NUM_OTHER_FORMS = 8
"""Videos that are stored in the other forms too."""
_JPEG_QUALITY = 90
_VP9 = {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "6", "threads": "1"}


def real_size_videos(folder: Path) -> list[str]:
    """Paths of `NUM_VIDEOS` mp4 files of the size and coding of Kinetics; kept in the folder for the next time.

    Raises:
        ManifestError: The folder holds something else.
    """
    write_realistic_videos(folder / "mp4", train=NUM_VIDEOS)
    paths: list[str] = read_manifest(folder / "mp4" / "train.parquet").table["path"].to_pylist()
    return paths


def stored_forms(folder: Path, videos: Sequence[str]) -> dict[StoredForm, list[str]]:
    """The same videos in every form, place by place; kept in the folder for the next time."""
    return {
        "mp4": list(videos),
        "frame_folder": _made(folder / "frames", "", videos, _write_frames),
        "packed": _made(folder / "packed", ".zip", _made(folder / "frames", "", videos, _write_frames), pack_frames),
        "webm": _made(folder / "webm", ".webm", videos, _write_webm),
        "prepared": _made(folder / "prepared", ".mp4", videos, _write_prepared),
    }


def prepared_psnr_db(originals: Sequence[str], copies: Sequence[str], *, every: int = 10) -> float:
    """Peak signal-to-noise ratio of prepared copies against their originals over every n-th frame, dB."""
    squares = [
        ((original.astype(np.float32) - copy) ** 2).mean()
        for source, target in zip(originals, copies, strict=True)
        for number, (original, copy) in enumerate(zip(_frames(source), _frames(target), strict=True))
        if number % every == 0
    ]
    return float(10 * np.log10(255**2 / np.mean(squares)))


def size_ratio(originals: Sequence[str], copies: Sequence[str]) -> float:
    """Bytes of the copies over those of their originals."""
    return sum(Path(copy).stat().st_size for copy in copies) / sum(Path(path).stat().st_size for path in originals)


def _made(folder: Path, ending: str, sources: Sequence[str], write: Callable[[str, Path], object]) -> list[str]:
    """What `write` makes of each source; under its name there's never half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / (Path(source).stem + ending) for source in sources]

    def make(source: str, target: Path) -> None:
        if not target.exists():
            unfinished = target.with_name(f"unfinished-{target.name}")
            if unfinished.is_dir():
                shutil.rmtree(unfinished)
            write(source, unfinished)
            unfinished.replace(target)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # codecs work outside Python's lock
        for _ in pool.map(make, sources, targets):
            pass
    return [str(target) for target in targets]


def _write_frames(source: str, target: Path) -> None:
    target.mkdir()
    for number, frame in enumerate(_frames(source), start=1):
        Image.fromarray(frame).save(target / f"{number:05d}.jpg", quality=_JPEG_QUALITY)


def _write_webm(source: str, target: Path) -> None:
    with av.open(str(target), "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=FRAME_RATE, options=_VP9)
        stream.pix_fmt = "yuv420p"
        for number, pixels in enumerate(_frames(source)):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_prepared(source: str, target: Path) -> None:
    transcode(source, target, TranscodeSettings())


def _frames(source: str) -> Iterator[Frames]:
    with av.open(source) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"))
