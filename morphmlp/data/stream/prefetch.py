"""Items made before they are asked for: in a thread, and across the joint between one source and the next."""

import queue
import threading
from collections.abc import Callable, Iterator, Sized
from typing import TypeVar

from morphmlp.errors import ClusterError

Item = TypeVar("Item")
Part = TypeVar("Part", bound=Sized)


def chain_early(parts: Iterator[Part], start: Callable[[Part], Iterator[Item]], *, early: int) -> Iterator[Item]:
    """The items of one part after the other; the next part starts while the last items of this one are still made.

    The next part starts `early` items before the end of this one; parts are as long as the items that they give.
    """

    def next_part() -> tuple[int, Iterator[Item]] | None:
        part = next(parts, None)
        return None if part is None else (len(part), start(part))

    following = next_part()
    while following is not None:
        (length, items), following = following, None
        for taken, item in enumerate(items, start=1):
            if taken == max(length - early, 1):
                following = next_part()
            yield item


def prefetch(items: Iterator[Item], *, depth: int, wait_s: float | None = None) -> Iterator[Item]:
    """The same items in the same order, up to `depth` of them made ahead.

    An error of the source is raised here, at its place in the order. Closing the generator stops the thread.

    Raises:
        ClusterError: The source gave nothing for `wait_s` seconds (None: it may take as long as it likes) while the
            caller waited; its thread is left behind.
    """
    ready: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: "Item | _End") -> None:
        while not stop.is_set():
            try:
                # Not for ever: a caller that stops in the middle takes nothing more out of a full queue.
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
        except BaseException as raised:  # noqa: BLE001 (handed to the caller, whatever it is)
            error = raised
        put(_End(error))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    stalled = False
    try:
        while not isinstance(item := ready.get(timeout=wait_s), _End):
            yield item
        if item.error is not None:
            raise item.error
    except queue.Empty:
        stalled = True
        raise ClusterError(
            f"ingest.wait_for_clips_s: no clips came for {wait_s:g} s; are the nodes that decode there?"
        ) from None
    finally:
        stop.set()
        if not stalled:  # the source must not be in use any more when the caller closes what it reads from
            thread.join()


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
