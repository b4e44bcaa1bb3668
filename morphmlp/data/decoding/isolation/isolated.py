"""Decoding in a separate process, so that a crash, an endless loop or runaway memory in a codec costs one video.

One child process decodes for as long as it lives; a fresh one takes its place where it died. In front of it stands the
same `VideoOpener` as in-process decoding gives, with the same frames and the same errors.
"""

import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

from morphmlp.data.decoding.isolation.child_process import ChildDiedError, ChildProcess
from morphmlp.data.decoding.isolation.wire import (
    FramesWritten,
    ImagesWritten,
    ImageWritten,
    InspectVideo,
    OpenVideo,
    ReadFrames,
    ReadImages,
    Request,
    ScanVideo,
    SharedFrames,
)
from morphmlp.data.decoding.protocol import Box, DecodedFrames, Frames, Inspection, VideoInfo, cut, frames_of_image
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.errors import DecodeError, DecoderCrashError, DecoderKilledError, DecodeTimeoutError

MOST_GROWTH_MB = 512
"""Growth past which a child is taken for a leaking one (decord's may grow) and replaced before the next video, MB."""
MOST_IDLE_BYTES = 256 * 2**20
"""Shared memory larger than this isn't kept for the next video."""
MOST_IMAGE_BYTES = 32 * 2**20
"""Pixels of images that are decoded at one go; a single one may have more."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one video may take, and what the user calls the limits: every message names what to change."""

    timeout_s: float
    """Time for one video, opening it and all that is read from it, seconds."""
    memory_mb: int | None = 4096
    """Memory, MB; None: no limit. Linux alone holds a process to it."""
    follow_work: bool = False
    """The time counts from the last sign of progress: a long video isn't given up, a decoder that stands still is."""
    timeout_name: str = "ingest.decode_timeout_s"
    memory_name: str = "ingest.decoder_memory_mb"


class IsolatedVideos:
    """Opens videos in a child process; threads may share it, and after a fork the new process gets its own child.

    Frames are handed over without a copy. They stay what they are for as long as anyone holds them: memory is used
    again once nobody does.
    """

    def __init__(self, decoder: str, limits: Limits, image_decoder: str = "simplejpeg") -> None:
        """Start nothing yet: the child starts with the first video.

        The decoder is named, or `module:function` of a function without arguments that returns one.
        """
        self._decoder, self._limits, self._image_decoder = decoder, limits, image_decoder
        self.cpu_s = 0.0
        """CPU seconds of the children so far. Their start isn't counted, nor what one took for a video that it died at
        or was ended for."""
        self._start_afresh()
        _alive.add(self)

    def start(self) -> None:
        """Start the child, which else starts with the first video."""
        with self._lock:
            self._ready()

    @property
    def child_pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return None if self._child is None else self._child.pid

    def open(
        self, path: str, *, num_frames: int | None, crc32: int | None = None, image: StoredImage | None = None
    ) -> "IsolatedReader":
        """Open a video. See `VideoOpener`.

        Raises:
            DecodeTimeoutError: The decoder didn't come to an end.
            DecoderCrashError: The decoder died; a DecoderKilledError where another process ended it.
            DecodeError: The decoder's own reason, or too much memory.
        """
        request = OpenVideo(path=path, num_frames=num_frames, crc32=crc32, image=image)
        reader = IsolatedReader(self, request, self._limits.timeout_s)
        with self._lock:
            reader.info = self._opened(reader)
        return reader

    def read_images(self, sources: Sequence[OpenVideo]) -> "list[DecodedImage | DecodeError | None]":
        """Open and decode the first of these images at one go: at least one, and as many as `MOST_IMAGE_BYTES` hold.

        An error stands for one that can't be used, None for a folder or a video under the name of an image. Where the
        child dies or stands still, each is decoded by itself, so that the one at fault costs itself alone.
        """
        with self._lock:
            self._ready()
            number = self._free_memory()
            request = ReadImages(sources=tuple(sources), memory=number, most_bytes=MOST_IMAGE_BYTES)
            clock = IsolatedReader(self, sources[0], self._limits.timeout_s)
            try:
                images = cast(ImagesWritten, self._ask(clock, request, memory=number)).images
            except DecodeError as error:
                if len(sources) == 1:
                    return [error]
            else:
                ends = [image.start + image.size for image in images if isinstance(image, ImageWritten)]
                pixels = self._memories[number].frames((max(ends, default=0),)) if ends else None
                return [_read(image, pixels) if isinstance(image, ImageWritten) else image for image in images]
        return [image for source in sources for image in self.read_images([source])]

    def close(self) -> None:
        """End the child; another one starts with the next video."""
        with self._lock:
            if self._child is not None:
                self._child.close()
                self._without_child()

    def __enter__(self) -> Self:
        """Nothing to do: the child starts with the first video."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the child."""
        self.close()

    def read(self, reader: "IsolatedReader", indices: Sequence[int], box: Box | None) -> DecodedFrames:
        """Frames of a video that was opened here; for its reader."""
        with self._lock:
            self._make_current(reader)
            number = self._free_memory()
            request = ReadFrames(indices=tuple(int(index) for index in indices), box=box, memory=number)
            written = cast(FramesWritten, self._ask(reader, request, memory=number))
            frames = self._memories[number].frames(written.shape)
        return DecodedFrames(frames=frames, concealed=written.concealed, refused=written.refused)

    def look_at(self, reader: "IsolatedReader", request: ScanVideo | InspectVideo) -> object:
        """What is to be known of a video that was opened here; for its reader."""
        with self._lock:
            self._make_current(reader)
            return self._ask(reader, request)

    def forget(self) -> None:
        """After a fork: leave the child, and the memory shared with it, to the parent process."""
        if self._child is not None:
            self._child.forget()
        for memory in self._memories:
            memory.close()
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._memories = [SharedFrames(), SharedFrames()]  # a caller often holds the frames of the video before
        self._without_child()

    def _without_child(self) -> None:
        self._child: ChildProcess | None = None
        self._leaks = False
        self._current: weakref.ref[IsolatedReader] | None = None
        self._passed = [False for _ in self._memories]

    def _ready(self) -> None:
        """A child that may be asked, without an open video."""
        if self._child is not None and (self._leaks or not self._child.alive):
            self._child.close()
            self._without_child()
        if self._child is None:
            self._child = ChildProcess(
                self._decoder,
                self._image_decoder,
                memory_mb=self._limits.memory_mb,
                memory_name=self._limits.memory_name,
            )
        self._current = None

    def _opened(self, reader: "IsolatedReader") -> VideoInfo:
        self._ready()
        info = cast(VideoInfo, self._ask(reader, reader.source))
        self._current = weakref.ref(reader)
        return info

    def _make_current(self, reader: "IsolatedReader") -> None:
        """The child holds one open video: open this one again if it was another's turn, or the child is a new one."""
        if self._current is None or self._current() is not reader:
            self._opened(reader)

    def _ask(self, reader: "IsolatedReader", request: Request, *, memory: int | None = None) -> object:
        """An answer to a request, which may be about one of the memories: the child gets to know each once."""
        child = cast(ChildProcess, self._child)
        descriptor = None
        if memory is not None and not self._passed[memory]:
            descriptor, self._passed[memory] = self._memories[memory].descriptor, True
        start = time.monotonic()
        try:
            # At least a moment: a child that answers at once is not given up for time that ran out before.
            seconds = max(reader.seconds_left, 1e-3)
            answer = child.ask(request, seconds=seconds, descriptor=descriptor, follow_work=self._limits.follow_work)
        except TimeoutError:
            self._without_child()
            did = "stood still for" if self._limits.follow_work else "didn't come to an end within"
            raise DecodeTimeoutError(
                f"the {self._decoder} decoder {did} {self._limits.timeout_s:g} s ({self._limits.timeout_name})"
            ) from None
        except ChildDiedError as cause:
            self._without_child()
            kind = DecoderKilledError if cause.killed else DecoderCrashError
            raise kind(f"the {self._decoder} decoder died ({cause})") from None
        except BaseException:
            # Ctrl-C between question and answer: the answer must not be taken for that to the next question.
            child.kill()
            self._without_child()
            raise
        finally:
            if not self._limits.follow_work:
                reader.seconds_left -= time.monotonic() - start
        self.cpu_s += answer.cpu_s
        # A codec that leaks a little with each file would end in the whole machine's memory after thousands of them.
        self._leaks = answer.own_bytes > child.own_bytes_at_start + MOST_GROWTH_MB * 2**20
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def _free_memory(self) -> int:
        """Number of a memory that nobody looks at any more; a new one where there is none."""
        free = [number for number, memory in enumerate(self._memories) if not memory.in_use]
        number = free[0] if free else 0
        if not free or self._memories[number].size > MOST_IDLE_BYTES:
            self._memories[number].close()
            self._memories[number] = SharedFrames()
            self._passed[number] = False
        return number


class IsolatedReader:
    """A video that is open in the child, or will be again when it's asked for."""

    info: VideoInfo

    def __init__(self, videos: IsolatedVideos, source: OpenVideo, seconds: float) -> None:
        self._videos, self.source, self.seconds_left = videos, source, seconds

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """The frames at these indices, or what a box cuts out of them."""
        return self._videos.read(self, indices, box)

    def scan(self) -> int:
        """Decode every frame once; returns how many are damaged."""
        return cast(int, self._videos.look_at(self, ScanVideo()))

    def inspect(self) -> Inspection:
        """Decode every frame, and hold a sample of the reads against that (see `inspection`)."""
        return cast(Inspection, self._videos.look_at(self, InspectVideo()))


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """An image that was decoded when it was opened."""

    info: VideoInfo
    frame: Frames
    """`[h w c]`."""
    refused: bool

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """The image, or what a box cuts out of it, for each of the indices, which must be 0.

        Raises:
            IndexError: No index, or another one.
        """
        frames = cut(frames_of_image(self.frame, indices), box)
        return DecodedFrames(frames=frames, concealed=0, refused=int(self.refused))


def _read(image: ImageWritten, pixels: Frames | None) -> DecodedImage:
    assert pixels is not None
    shape = (image.info.height, image.info.width, 3)
    frame = pixels[image.start : image.start + image.size].reshape(shape)
    return DecodedImage(info=image.info, frame=frame, refused=image.refused)


def isolated_videos(
    decoder: str, limits: Limits, image_decoder: str = "simplejpeg", *, number: int = 0
) -> IsolatedVideos:
    """This process's own `IsolatedVideos` for its decoders, made once: its child serves task after task.

    Threads that decode at the same time have one each, by number.
    """
    key = (decoder, limits, image_decoder, number)
    if key not in _of_this_process:
        _of_this_process.setdefault(key, IsolatedVideos(decoder, limits, image_decoder))
    return _of_this_process[key]


def _after_fork() -> None:
    for videos in list(_alive):
        videos.forget()


_of_this_process: dict[tuple[str, Limits, str, int], IsolatedVideos] = {}
_alive: weakref.WeakSet[IsolatedVideos] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
