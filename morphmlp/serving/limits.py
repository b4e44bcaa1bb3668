"""What a server takes on, and how it says no: one HTTP status and one line."""

from dataclasses import dataclass

from morphmlp.errors import MorphMLPError

MB = 2**20


class RefusedError(MorphMLPError):
    """A request that isn't answered, with its HTTP status."""

    def __init__(self, status: int, line: str, *, retry_after_s: int | None = None, unread: bool = False) -> None:
        """`retry_after_s`: when the same request may be answered, seconds; `unread`: the rest of it isn't read."""
        super().__init__(line)
        self.status = status
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        if unread:
            self.headers["Connection"] = "close"


@dataclass(frozen=True, kw_only=True)
class ServingLimits:
    """The most that one request may ask for, and how many wait."""

    upload_bytes: int = 512 * MB
    """Of a file that is sent."""
    queued: int = 16
    """Requests that wait in a replica for a free decoder; one more is refused."""
    seconds: float = 600.0
    """Length of a video."""
    frames: int = 100_000
    """Of a video: short times can be written on many frames."""
    gigapixels: float = 200.0
    """Of all frames together; ten minutes of 4K at 30 frames a second have 150."""
    windows: int = 2_000
    """That slide over a video."""
    stalled_s: float = 30.0
    """Time without a byte after which a sender is given up, seconds."""
    upload_s: float = 900.0
    """Time for all of a file that is sent, seconds: a sender that drips keeps its place no longer."""
    survey_s: float = 60.0
    """Time for going through a file's packets, seconds."""


def require_allowed(limits: ServingLimits, *, num_frames: int, length_s: float, pixels: int) -> None:
    """Refuse a file with more than is decoded; `pixels` are those of one frame.

    Raises:
        RefusedError: It has more.
    """
    if length_s > limits.seconds:
        raise RefusedError(413, f"lasts {length_s:,.0f} s; at most {limits.seconds:,g} s are looked at")
    if num_frames > limits.frames:
        raise RefusedError(413, f"has {num_frames:,} frames; at most {limits.frames:,} are looked at")
    gigapixels = num_frames * pixels / 1e9
    if gigapixels > limits.gigapixels:
        raise RefusedError(
            413, f"its frames have {gigapixels:,.1f} gigapixels together; at most {limits.gigapixels:,g} are decoded"
        )
