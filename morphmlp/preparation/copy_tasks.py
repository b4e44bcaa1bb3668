"""What makes one video's copy, as a task for the cluster: a transcoded file, or an archive of frames."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from morphmlp.data.decoding.protocol import require_content
from morphmlp.data.decoding.sources import file_crc32, holds_frame_files, holds_frames
from morphmlp.data.decoding.stored_frames.frame_names import stored_path
from morphmlp.data.decoding.stored_frames.frame_stores import SUFFIX, open_packed_frames, pack_frames
from morphmlp.data.manifest import writing
from morphmlp.data.quarantine import file_state
from morphmlp.errors import DecodeError, DecodeTimeoutError
from morphmlp.preparation.copies import COPIED, CopyFiles
from morphmlp.preparation.findings import facts_of
from morphmlp.preparation.likeness import least_psnr_db
from morphmlp.preparation.subprocess_call import SubprocessCall
from morphmlp.preparation.transcode_settings import TranscodeSettings
from morphmlp.preparation.transcoding import Copy, transcode
from morphmlp.preparation.work_folder import stored_bytes


@dataclass(frozen=True, kw_only=True)
class TranscodeTask:
    """Transcodes one video file, in a separate process."""

    files: CopyFiles
    transcoding: TranscodeSettings
    timeout_s: float
    """A video at which nothing moves for so long is given up, seconds."""

    how = "transcode"
    with_what = "pyav"
    version = version("av")
    schema = COPIED

    def settings(self) -> dict[str, JsonValue]:
        """What the copies depend on."""
        return {**asdict(self.transcoding), "least_psnr_db": least_psnr_db(self.transcoding.crf)}

    def __call__(self, video: Mapping[str, object]) -> dict[str, object]:
        """Write the copy; for what is raised see `VideoTask`."""
        path = str(video["path"])
        if holds_frames(path):
            raise DecodeError("is stored as frames; transcode takes video files")
        require_content(path)
        target = _place(self.files, video, ".mp4")
        request = (path, str(target), self.transcoding)
        try:
            copy = cast(Copy, _isolated_transcode()(request, timeout_s=self.timeout_s))
        except DecodeTimeoutError as error:
            raise DecodeTimeoutError(f"{error} (--timeout-s)") from None
        return {
            **_written(path, target),
            **facts_of(copy.info),
            "crc32": file_crc32(str(target)),
            "damaged_frames": copy.lost,
            "cut_short": copy.cut_short,
        }


@dataclass(frozen=True, kw_only=True)
class PackTask:
    """Packs one folder of frames into an archive."""

    files: CopyFiles

    how = "pack"
    with_what = "frames"
    version = ""
    schema = COPIED

    def settings(self) -> dict[str, JsonValue]:
        """What is done besides copying: archives of other makings weren't looked at."""
        return {"decoded": True}

    def __call__(self, video: Mapping[str, object]) -> dict[str, object]:
        """Write the archive, and decode what is in it once; for what is raised see `VideoTask`."""
        path, promised = str(video["path"]), cast(int | None, video["num_frames"])
        if not Path(stored_path(path)).exists():
            raise DecodeError("no such file or directory")
        if not holds_frame_files(path):
            raise DecodeError("isn't a folder of frames")
        target = _place(self.files, video, SUFFIX)
        with writing(target):
            pack_frames(path, target)
        try:
            packed = open_packed_frames(str(target), num_frames=promised)
            damaged = packed.scan()
        except DecodeError:
            target.unlink()
            raise
        return {
            **_written(path, target),
            **facts_of(packed.info),
            "crc32": None,  # the archive has one for each frame
            "damaged_frames": damaged,
            "cut_short": "",
        }


CopyTask = TranscodeTask | PackTask


def transcode_one(request: tuple[str, str, TranscodeSettings]) -> Copy:
    """Runs in the separate process: transcode from a path to a path."""
    source, target, settings = request
    return transcode(source, Path(target), settings)


@cache
def _isolated_transcode() -> SubprocessCall:
    """This process's own: it serves task after task."""
    return SubprocessCall(f"{transcode_one.__module__}:{transcode_one.__name__}")


def _place(files: CopyFiles, video: Mapping[str, object], suffix: str) -> Path:
    target = files.copy_of(str(video["video_id"]), suffix)
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _written(source: str, target: Path) -> dict[str, object]:
    size, mtime = file_state(str(target))
    written = {"output": str(target), "output_bytes": size, "output_mtime": mtime}
    return {"stored_bytes": stored_bytes(source), **written}
