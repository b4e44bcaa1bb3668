"""The separate process in which a decoder runs: `python -m morphmlp.data.decoding.isolation.child`.

Started by `child_process`, asked over a socket (`wire`), it holds one open video at a time. It imports neither torch
nor Ray, unless the decoder does, and takes no part in anything else: whatever a codec does here, it does to one video.
"""

import argparse
import importlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import cast

import numpy as np

from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.inspection import inspect_file, inspect_stored_frames
from morphmlp.data.decoding.isolation.wire import (
    Answer,
    FramesWritten,
    ImagesWritten,
    ImageWritten,
    OpenVideo,
    Outcome,
    ReadFrames,
    ReadImages,
    Request,
    ScanVideo,
    SharedFrames,
    TimedRequest,
    Working,
    receive,
    send,
)
from morphmlp.data.decoding.protocol import Decoder, VideoOpener, VideoReader, heard, written_to
from morphmlp.data.decoding.sources import AnyVideo, holds_frames
from morphmlp.data.decoding.stored_frames.stills import ImageReader
from morphmlp.errors import DecodeError

MB = 2**20
_SAY_EVERY_S = 0.2


def main() -> None:
    """Answer requests until the other end of the socket is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="descriptor of a connected Unix socket")
    parser.add_argument("--decoder", required=True, help="a decoder's name, or module:function that makes one")
    parser.add_argument("--image-decoder", required=True, help="what decodes JPEGs")
    parser.add_argument("--memory-mb", type=int, help="memory that a video may take")
    parser.add_argument("--memory-name", required=True, help="what the user calls that limit")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: when it goes, the socket ends
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the end of a native loop that lets no Python handler run
    channel = socket.socket(fileno=arguments.socket)
    videos = AnyVideo(make_decoder(arguments.decoder), arguments.image_decoder)
    if arguments.memory_mb is not None:  # only now: what imports take is no video's fault
        _limit_memory(arguments.memory_mb)
    send(channel, own_bytes())  # the first word, once everything is imported
    limit = "there is" if arguments.memory_mb is None else f"the {arguments.memory_mb} MB of {arguments.memory_name}"
    Server(channel, videos, decoder=arguments.decoder, memory_limit=limit).serve()
    os._exit(0)  # nothing is left to save, and destructors of native libraries may hang


def make_decoder(decoder: str) -> Decoder:
    """A decoder by its name, or by `module:function`, a function without arguments that returns it."""
    module, colon, function = decoder.partition(":")
    if not colon:
        return decoder_by_name(decoder)
    return cast(Decoder, getattr(importlib.import_module(module), function)())


class Server:
    """Answers one request after the other."""

    def __init__(self, channel: socket.socket, videos: VideoOpener, *, decoder: str, memory_limit: str) -> None:
        self._channel, self._videos = channel, videos
        self._decoder, self._memory_limit = decoder, memory_limit
        self._reader: VideoReader | None = None
        self._opened: OpenVideo | None = None
        self._memories: dict[int, SharedFrames] = {}
        self._counted_cpu_s = time.process_time()

    def serve(self) -> None:
        """Until the other end is gone."""
        while True:
            try:
                message, descriptors = receive(self._channel)
            except EOFError:
                return
            timed = cast(TimedRequest, message)
            if isinstance(timed.request, ReadFrames | ReadImages) and descriptors:
                self._memories[timed.request.memory] = SharedFrames(descriptors[0])
            signal.setitimer(signal.ITIMER_REAL, timed.seconds)
            try:
                with heard(self._progress(timed.seconds) if timed.follow_work else None):
                    value = self._outcome(timed.request)
                signal.setitimer(signal.ITIMER_REAL, 0)
                send(self._channel, Answer(value=value, own_bytes=own_bytes(), cpu_s=self._new_cpu_s()))
            except BrokenPipeError:
                return

    def _progress(self, seconds: float) -> Callable[[], None]:
        """What to do at every sign of progress: seldom enough to cost nothing, say so and begin to count anew."""
        said = time.monotonic()

        def say() -> None:
            nonlocal said
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                signal.setitimer(signal.ITIMER_REAL, seconds)
                send(self._channel, Working())

        return say

    def _new_cpu_s(self) -> float:
        before, self._counted_cpu_s = self._counted_cpu_s, time.process_time()
        return self._counted_cpu_s - before

    def _outcome(self, request: Request) -> Outcome:
        try:
            return self._carry_out(request)
        except (DecodeError, IndexError) as error:
            return error
        except Exception as error:  # noqa: BLE001 (types that the other end may not know; one video is lost by it)
            return self._in_words(error)

    def _in_words(self, error: Exception) -> DecodeError:
        if isinstance(error, MemoryError):
            self._reader = None
            return DecodeError(f"needs more memory than {self._memory_limit}")
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return DecodeError(f"the {self._decoder} decoder failed: {reason}")

    def _carry_out(self, request: Request) -> Outcome:
        if isinstance(request, OpenVideo):
            self._reader = None  # closed before the next one takes memory
            self._opened = request
            self._reader = self._videos.open(
                request.path, num_frames=request.num_frames, crc32=request.crc32, image=request.image
            )
            return self._reader.info
        if isinstance(request, ReadImages):
            self._reader = None
            return self._images(request)
        if self._reader is None:
            raise DecodeError("was given up before")
        if isinstance(request, ReadFrames):
            memory = self._memories[request.memory]
            with written_to(memory.frames):
                decoded = self._reader.read(request.indices, request.box)
            if not np.may_share_memory(shared := memory.frames(decoded.frames.shape), decoded.frames):
                np.copyto(shared, decoded.frames)
            return FramesWritten(shape=decoded.frames.shape, concealed=decoded.concealed, refused=decoded.refused)
        if isinstance(request, ScanVideo):
            return self._reader.scan()
        assert self._opened is not None
        if self._opened.image is not None or holds_frames(self._opened.path):
            return inspect_stored_frames(self._reader)
        return inspect_file(self._reader, self._opened.path, is_same_library=self._decoder == "pyav")

    def _images(self, request: ReadImages) -> ImagesWritten:
        memory, images = self._memories[request.memory], list[ImageWritten | DecodeError | None]()
        end = 0
        for source in request.sources:
            try:
                reader = self._videos.open(
                    source.path, num_frames=source.num_frames, crc32=source.crc32, image=source.image
                )
                if not isinstance(reader, ImageReader):
                    images.append(None)
                    continue
                start, info = end, reader.info
                size = info.height * info.width * 3
                if images and start + size > request.most_bytes:
                    break
                target = memory.frames((max(start + size, request.most_bytes),))[start : start + size]
                refused = reader.read_into(target.reshape(info.height, info.width, 3))
                images.append(ImageWritten(info=info, start=start, refused=refused))
                end += size
            except DecodeError as error:
                images.append(error)
            except Exception as error:  # noqa: BLE001 (one image is lost by it)
                images.append(self._in_words(error))
        return ImagesWritten(images=tuple(images))


def _limit_memory(megabytes: int) -> None:
    """Let this process take so much more memory of its own than it holds now; past it, allocations fail.

    The data limit, not the address space: libraries map far more than they use.
    """
    limit = _pages()[5] * resource.getpagesize() + megabytes * MB
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def own_bytes() -> int:
    """Memory in use that isn't shared with another process."""
    _, resident, shared, *_ = _pages()
    return (resident - shared) * resource.getpagesize()


def _pages() -> list[int]:
    """Size, resident, shared, text, library and data pages of this process; zeros where the system doesn't say."""
    try:
        # Read after every answer: through a Path it takes three times as long.
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return [0] * 7
    try:
        return [int(number) for number in os.read(descriptor, 256).split()]
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
