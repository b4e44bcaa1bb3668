"""In which order a file's packets are shown, where the file itself proves it, and when.

Containers differ in what they know. AVI and raw streams have no presentation times, so that libraries guess them; a
file remuxed from one inherits the guess; in a transport stream a packet can be half a frame, and joined files repeat
times.
A packet's place in the display order is taken for known only where nothing of this can be; anything else has to be
decoded from the start to be known. It must not know how frames are decoded.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from statistics import median

from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext

from morphmlp.data.decoding.pyav.packets import Packets
from morphmlp.data.decoding.pyav.picture_headers import TYPE_READERS

_TIMED_CONTAINERS = {"mov", "matroska", "flv", "mpegts"}
"""Names of formats that store a presentation time for each packet; the first one where FFmpeg has several."""
_REORDERED = {"h264", "hevc"}
_UNORDERED = {"vp8", "vp9", "av1"}
"""Codecs whose frames are shown in coded order."""
_JOINED_GAP_S = 10.0
"""In streams that can be cut and joined anywhere, a longer step of time is a joint, as FFmpeg's command has it."""
_LONGEST_GAP_S = 3600.0


def proven_order(
    container: InputContainer, context: VideoCodecContext, packets: Packets, *, is_interlaced: bool
) -> list[int] | None:
    """Places of all packets in display order, those that an edit list hides among them.

    None where it isn't certain that each packet gives one frame, that this is their order, and that decoding can start
    at the key packets.
    """
    if not packets.keys or packets.keys[0] != 0:
        return None  # captured from the middle: a decoder gives nothing before the first key packet
    if context.codec.canonical_name in TYPE_READERS:
        starts_whole = all(packets.types[place] == "I" for place in packets.keys)
        # Interlaced MPEG-4: FFmpeg's B-pictures depend on where it began to decode.
        is_free = not (context.codec.canonical_name == "mpeg4" and is_interlaced and "B" in packets.types)
        return _order_by_types(packets.types) if starts_whole and is_free and "?" not in packets.types else None
    pts = [time for time in packets.pts if time is not None]
    is_certain = (
        container.format.name.partition(",")[0] in _TIMED_CONTAINERS
        and len(pts) == len(packets)
        and _are_consistent(packets, pts)
        and _fits_times(context, packets, is_reordered=any(later < earlier for earlier, later in pairwise(pts)))
    )
    return sorted(range(len(packets)), key=pts.__getitem__) if is_certain else None


def _order_by_types(types: list[str]) -> list[int] | None:
    """Places of the pictures in the order in which they are shown.

    A B-picture is shown at once, any other after the B-pictures that follow it. None where a decoder would drop some,
    because B-pictures come before there are two to refer to.
    """
    order: list[int] = []
    waiting = None
    for place, kind in enumerate(types):
        if kind == "B":
            if not order:
                return None
            order.append(place)
        else:
            if waiting is not None:
                order.append(waiting)
            waiting = place
    return order if waiting is None else [*order, waiting]


def _are_consistent(packets: Packets, pts: Sequence[int]) -> bool:
    """Whether no two packets are shown at the same time, none before the first one, and each is decoded after the last.

    Frames before the first one refer to what was cut off in front of it, and a decoder drops them.
    """
    shown = [time for time, is_shown in zip(pts, packets.is_shown, strict=True) if is_shown]
    decoded = [dts for dts in packets.dts if dts is not None]
    return (
        len(set(shown)) == len(shown)
        and pts[0] <= min(shown)
        and all(earlier <= later for earlier, later in pairwise(decoded))
    )


def _fits_times(context: VideoCodecContext, packets: Packets, *, is_reordered: bool) -> bool:
    """Whether the codec gives one frame for each packet, in the order of the times."""
    if context.codec.canonical_name not in _REORDERED:
        return not is_reordered and (context.codec.canonical_name in _UNORDERED or context.codec.intra_only)
    if is_reordered != bool(context.reorder_depth):
        return False  # a codec that reorders and times that don't, or the other way round: one of them is wrong
    return packets.are_frames


def frame_times(
    *candidates: Sequence[int | None], per_s: float, declared_fps: float, can_be_joined: bool
) -> list[float]:
    """Ascending times of frames in display order, seconds.

    Frames without a time between two that have one are spread evenly (a program stream has it for some only). Where
    a time is missing, isn't after the last one, or jumps as no video does, the frame follows the last one at the
    usual distance, and so do those behind it.

    Each of `candidates` is what the file says of all frames, in units of which `per_s` are a second; the one that
    ascends best is taken. The declared rate serves where the times give none.
    """
    longest = per_s * (_JOINED_GAP_S if can_be_joined else _LONGEST_GAP_S)
    choices = []
    for stamps in candidates:
        steps = _good_steps(stamps, longest)
        if None not in steps and stamps[0] is not None:
            return [stamp / per_s for stamp in stamps if stamp is not None]
        filled = _filled(stamps)
        choices.append((filled, _good_steps(filled, longest)))
    times, steps = min(choices, key=lambda choice: choice[1].count(None))
    good = [step for step in steps if step is not None]
    usual = median(good) if good else per_s / declared_fps
    at: float = next((time for time in times if time is not None), 0)
    return [time / per_s for time in accumulate((usual if step is None else step for step in steps), initial=at)]


def _filled(stamps: Sequence[int | None]) -> list[float | None]:
    """Times, with those that are missing between two ascending ones spread evenly."""
    filled: list[float | None] = list(stamps)
    known = [(place, stamp) for place, stamp in enumerate(stamps) if stamp is not None]
    for (first, earlier), (last, later) in pairwise(known):
        if later > earlier:
            for place in range(first + 1, last):
                filled[place] = earlier + (later - earlier) * (place - first) / (last - first)
    return filled


def _good_steps(stamps: Sequence[float | None], longest: float) -> list[float | None]:
    """From each time to the next; None where one is missing or the step is none that a video takes."""
    return [
        later - earlier if earlier is not None and later is not None and 0 < later - earlier <= longest else None
        for earlier, later in pairwise(stamps)
    ]
