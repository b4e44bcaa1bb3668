"""A network that answers requests: some files at a time, each decoded by a process of its own, their clips together.

A file is surveyed before anything of it is decoded. Predictions are those of `pipelines/predict.py`, by its code.
"""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.data.decoding.sources import is_image
from morphmlp.data.decoding.stored_frames.frame_names import PICTURES
from morphmlp.errors import DecodeError, DecodeTimeoutError
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.prediction.inputs import without_path
from morphmlp.prediction.predict import predict_over_time, predict_whole
from morphmlp.prediction.scenes import SceneModel
from morphmlp.prediction.sliding import Sliding
from morphmlp.prediction.trained import TrainedNetwork
from morphmlp.serving.limits import RefusedError, ServingLimits, require_allowed
from morphmlp.serving.scene_answers import Answer, Form, segmented
from morphmlp.serving.survey import SURVEY
from morphmlp.tasks.segmentation.prediction import Predicted

Logits = npt.NDArray[np.float32]
Model = VideoModel | SceneModel
Kind = Literal["images", "videos"]
_LONGEST_WAIT_S = 60


class Meter(Protocol):
    """Where a server's figures go."""

    def occupied(self, *, working: int, waiting: int) -> None:
        """Requests that are worked on, and that wait or send."""

    def scored(self, *, requests: int, clips: int, seconds: float) -> None:
        """Clips of so many requests went through the network together."""

    def answered(self, *, status: int, seconds: float) -> None:
        """A request has its answer; status 499: its sender hung up."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a file."""

    top: int
    windows: Sliding | None
    """None: the whole, as the test looks at it."""
    form: Form = "json"


def model_of(trained: TrainedNetwork) -> Model:
    """A trained network of either task with all that its test does to a file."""
    return trained.video_model() if trained.config.segmentation is None else SceneModel(trained)


class HungUpError(Exception):
    """Nobody waits for the answer any more."""


class Predictor:
    """Answers questions about files; lives in one event loop."""

    def __init__(
        self,
        model: Model,
        *,
        limits: ServingLimits,
        decoders: int,
        network_threads: int,
        meter: Meter,
        together: Callable[[Tensor], Awaitable[Logits]] | None = None,
    ) -> None:
        """Build it.

        `decoders` files are decoded at a time. `together` collects clips and gives their logits; it's expected to call
        `score`. Without it each file's clips go through the network by themselves.
        """
        self.model, self.limits = model, limits
        self.meter, self._decoders = meter, decoders
        self._together = together or self._alone
        self._free: asyncio.Queue[Model] = asyncio.Queue()
        for number in range(decoders):
            self._free.put_nowait(self._for_thread(number))
        self._threads = ThreadPoolExecutor(decoders, thread_name_prefix="decoder")
        self._network = ThreadPoolExecutor(
            1, thread_name_prefix="network", initializer=torch.set_num_threads, initargs=(network_threads,)
        )
        memory_mb = model.config.ingest.decoder_memory_mb
        self._surveys = isolated_videos(SURVEY, Limits(timeout_s=limits.survey_s, memory_mb=memory_mb))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inside = self._working = 0
        self._mean_s = 1.0

    @property
    def takes(self) -> tuple[Kind, ...]:
        """What the network looks at: one that classifies single frames looks at those of a video, too."""
        if self.model.config.clip.num_frames > 1:
            return ("videos",)
        return ("images",) if isinstance(self.model, SceneModel) else ("images", "videos")

    def require_kind(self, name: str, *, unread: bool = False) -> None:
        """Refuse a file of a kind that the network doesn't look at; `unread`: before its bytes are read.

        Raises:
            RefusedError: The name is that of the other kind.
        """
        if is_image(name) and "images" not in self.takes:
            raise RefusedError(415, "is an image; this network looks at videos", unread=unread)
        if not is_image(name) and "videos" not in self.takes:
            kinds = f"{', '.join(PICTURES[:-1])} or {PICTURES[-1]}"
            raise RefusedError(415, f"is no image (a file named {kinds}); this network looks at images", unread=unread)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place among those that send, wait and are worked on.

        Raises:
            RefusedError: There is none.
        """
        if self._inside >= self._decoders + self.limits.queued:
            wait_s = math.ceil(min(self._mean_s * self._inside / self._decoders, _LONGEST_WAIT_S))
            raise RefusedError(
                503,
                f"{self._inside} requests are waiting or being answered, as many as are taken; try again in {wait_s} s",
                retry_after_s=wait_s,
            )
        self._count(inside=1)
        try:
            yield
        finally:
            self._count(inside=-1)

    async def answer(self, path: str, question: Question, hung_up: Awaitable[None]) -> Answer:
        """What the network says of a file.

        Raises:
            RefusedError: The file has more than is decoded, or can't be used.
            HungUpError: `hung_up` came to its end before.
        """
        self._loop = asyncio.get_running_loop()
        left = threading.Event()
        leaving = asyncio.ensure_future(hung_up)
        work = asyncio.ensure_future(self._worked(path, question, left))
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise HungUpError
            return work.result()
        finally:
            # A decoder that works on is free again when it has ended: nothing waits for it here.
            left.set()
            leaving.cancel()
            if not work.done():
                work.add_done_callback(_ignore)

    async def score(self, requests: Sequence[Tensor]) -> list[Logits]:
        """Logits `[n views classes]` of each request's clips, uint8 `[n views t h w c]`, all scored at once."""
        began_s = time.monotonic()
        logits = await asyncio.get_running_loop().run_in_executor(self._network, self._scored, requests)
        clips = sum(request.shape[0] * request.shape[1] for request in requests)
        self.meter.scored(requests=len(requests), clips=clips, seconds=time.monotonic() - began_s)
        return logits

    def close(self) -> None:
        """Take no more work; what is worked on comes to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._network.shutdown(wait=False)

    async def _alone(self, clips: Tensor) -> Logits:
        (logits,) = await self.score([clips])
        return logits

    async def _worked(self, path: str, question: Question, left: threading.Event) -> Answer:
        model = await self._free.get()
        self._count(working=1)
        began_s = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._looked_at, model, path, question, left)
        finally:
            self._free.put_nowait(model)
            self._mean_s += 0.1 * (time.monotonic() - began_s - self._mean_s)
            self._count(working=-1)

    def _looked_at(self, model: Model, path: str, question: Question, left: threading.Event) -> Answer:
        """In a decoder's thread."""

        def on_progress(done: int, of: int) -> None:
            if left.is_set():
                raise HungUpError

        on_progress(0, 1)
        self._survey(path, question.windows)
        try:
            if isinstance(model, SceneModel):
                return segmented(model, path, top=question.top, form=question.form)
            if question.windows is None:
                return Answer(plain=predict_whole(model, path, top=question.top).plain())
            found = predict_over_time(model, path, question.windows, top=question.top, on_progress=on_progress)
            return Answer(plain=found.plain())
        except DecodeError as error:
            raise RefusedError(422, f"can't be decoded: {without_path(error, path)}") from None

    def _survey(self, path: str, windows: Sliding | None) -> None:
        try:
            info = self._surveys.open(path, num_frames=None).info
        except DecodeTimeoutError:
            raise RefusedError(422, f"going through it takes more than {self.limits.survey_s:g} s") from None
        except DecodeError as error:
            raise RefusedError(415, f"is nothing that can be looked at: {without_path(error, path)}") from None
        length_s = info.pts_s[-1] - info.pts_s[0]
        require_allowed(self.limits, num_frames=info.num_frames, length_s=length_s, pixels=info.width * info.height)
        if windows is not None:
            self._require_few(windows, info)

    def _require_few(self, windows: Sliding, info: VideoInfo) -> None:
        count = math.ceil(info.num_frames / max(windows.hop.frames(info.fps), 1e-9))
        if count > self.limits.windows:
            raise RefusedError(
                413, f"hop: {windows.hop} makes {count:,} windows of it; at most {self.limits.windows:,} are looked at"
            )

    def _for_thread(self, number: int) -> Model:
        if isinstance(self.model, SceneModel):
            return self.model.for_thread(number, self._in_turn)
        return self.model.for_thread(number, self._from_thread)

    def _in_turn(self, work: Callable[[], Predicted]) -> Predicted:
        """The network's work on one image, for a decoder's thread, which waits for it."""
        assert self._loop is not None
        return self._network.submit(self._timed, work, self._loop).result()

    def _timed(self, work: Callable[[], Predicted], loop: asyncio.AbstractEventLoop) -> Predicted:
        began_s = time.monotonic()
        found = work()
        seconds = time.monotonic() - began_s
        loop.call_soon_threadsafe(partial(self.meter.scored, requests=1, clips=1, seconds=seconds))
        return found

    def _from_thread(self, clips: Tensor) -> Logits:
        """Logits of clips, for a decoder's thread, which waits for them."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(_awaited(self._together, clips), self._loop).result()

    def _scored(self, requests: Sequence[Tensor]) -> list[Logits]:
        assert isinstance(self.model, VideoModel)
        logits: dict[int, Logits] = {}
        for shape in {request.shape[1:] for request in requests}:
            places = [place for place, request in enumerate(requests) if request.shape[1:] == shape]
            joined = self.model.clip_logits(torch.cat([requests[place] for place in places]))
            ends = np.cumsum([len(requests[place]) for place in places])[:-1]
            logits.update(zip(places, np.split(joined, ends), strict=True))
        return [logits[place] for place in range(len(requests))]

    def _count(self, *, inside: int = 0, working: int = 0) -> None:
        self._inside += inside
        self._working += working
        self.meter.occupied(working=self._working, waiting=max(self._inside - self._working, 0))


async def _awaited(together: Callable[[Tensor], Awaitable[Logits]], clips: Tensor) -> Logits:
    return await together(clips)


def _ignore(work: "asyncio.Future[Answer]") -> None:
    """Take note of how work ended that nobody waits for."""
    if not work.cancelled():
        work.exception()
