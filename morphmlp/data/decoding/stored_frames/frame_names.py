"""Which files of a folder, or entries of an archive, are the frames of a video, and their order.

A frame's name is the same in all frames but for its number: `00001.jpg`, `img_00001.jpg`, `frame0.png`. Where a folder
holds more than that, a template says which are meant; it stands behind the folder, as in `DIR/img_%05d.jpg`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from morphmlp.errors import DecodeError

PICTURES = (".jpg", ".jpeg", ".png")
"""Endings of the names of frames and images, in small letters."""
EXAMPLES = "00001.jpg, img_00001.jpg or frame0.png"
_FRAME = re.compile(r"(?P<before>.*?)(?P<number>[0-9]+)(?P<after>\.(?:jpe?g|png))", re.IGNORECASE | re.DOTALL)
_TEMPLATE = re.compile(r"([^/%{}]*)(?:%(?:0([0-9]+))?d|\{(?::0?([0-9]*)d?)?\})([^/%{}]*\.(?:jpe?g|png))", re.IGNORECASE)
_LEFT_BY_SYSTEMS = frozenset(("thumbs.db", "desktop.ini", "@eadir", "icon\r"))
_LEFT_BY_TOOLS = re.compile(r"n_frames|flow_[xy]_?[0-9]+\.(jpe?g|png)", re.IGNORECASE)
"""A count that one extraction tool leaves, and optical flow, which others put next to the frames."""


def ordered_names(
    names: Iterable[str], *, where: str, num_frames: int | None = None, template: str | None = None
) -> tuple[str, ...]:
    """File names of the frames, first to last.

    What systems and known tools leave is passed over (hidden files, `Thumbs.db`, optical flow); every other name must
    be a frame's. With a template everything that doesn't fit it is passed over.

    Args:
        names: The names, in any order.
        where: Folder or archive, for the messages.
        num_frames: Frames that the list promises; those beyond it are left out. None: all are used.
        template: Of the names (see `printf_template`); None where they are to be found out.

    Raises:
        DecodeError: No frames, an unknown name, two ways of naming, a gap, or fewer frames than promised.
    """
    if template is not None:
        numbered = _by_template(names, template)
    else:
        numbered = _by_number([name for name in names if not _is_left_over(name)], where)
    if not numbered:
        raise DecodeError(f"{where} holds no frames; they must be named as {template or EXAMPLES}, from 0 or 1 on")
    frames: dict[int, str] = {}
    for number, name in numbered:
        if (other := frames.get(number)) is not None:
            both = (
                f"{shown(name)} 2 times" if other == name else f"{shown(other)} and {shown(name)}, both frame {number}"
            )
            raise DecodeError(f"{where} holds {both}")
        frames[number] = name
    first, last = min(1, *frames), max(frames)
    if len(frames) <= last - first:
        missing = next(number for number in range(first, last) if number not in frames)
        raise DecodeError(
            f"{where}: frame {missing} is missing; they must go from {first} to the last ({last}) without a gap"
        )
    if num_frames is not None and len(frames) < num_frames:
        raise DecodeError(f"{where} holds {len(frames)} frames, the list promises {num_frames}")
    return tuple(frames[number] for number in range(first, first + (num_frames or len(frames))))


def printf_template(text: str) -> str | None:
    """A template of frames' names in the form `img_%05d.jpg`, also from `img_{:05}.jpg`; None where it's none."""
    match = _TEMPLATE.fullmatch(text)
    if match is None:
        return None
    before, printf_digits, format_digits, after = match.groups()
    digits = int(printf_digits or format_digits or 0)
    return f"{before}%{f'0{digits}' if digits > 1 else ''}d{after}"


def split_template(path: str) -> tuple[str, str | None]:
    """A path of a manifest as the folder and the template of the frames in it; None where it has no template."""
    folder, slash, name = path.rpartition("/")
    return (folder, name) if slash and "%" in name and printf_template(name) == name else (path, None)


def stored_path(path: str) -> str:
    """What there is on disk of a video: its file or folder."""
    return split_template(path)[0]


def shown(name: str) -> str:
    r"""A file's name for messages and tables, which take nothing but UTF-8: other bytes as `\xe9`."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _is_left_over(name: str) -> bool:
    *folders, last = name.split("/")
    left = last.startswith(".") or last.lower() in _LEFT_BY_SYSTEMS or _LEFT_BY_TOOLS.fullmatch(last) is not None
    return left or "__MACOSX" in folders or not last


def _by_number(names: Sequence[str], where: str) -> list[tuple[int, str]]:
    """Names with their numbers, where all are alike."""
    forms: dict[tuple[str, str], list[str]] = defaultdict(list)
    numbered = []
    for name in names:
        match = _FRAME.fullmatch(name)
        if match is None:
            raise DecodeError(f"{where} holds {shown(name)}, which isn't a frame; they must be named as {EXAMPLES}")
        forms[match["before"], match["after"].lower()].append(match["number"])
        numbered.append((int(match["number"]), name))
    ways = [f"{before}{1:0{width}}{after}" for (before, after), numbers in forms.items() for width in _widths(numbers)]
    if len(ways) > 1:
        raise DecodeError(
            f"{where} holds frames named as {' and as '.join(map(shown, ways))}; all must be named in one way, or "
            "prepare.py's --frame-template says which are meant"
        )
    return numbered


def _widths(numbers: Sequence[str]) -> list[int]:
    """To how many digits numbers are filled up with zeros; a number that needs more may have more."""
    least = min(map(len, numbers))
    return sorted({len(digits) for digits in numbers if len(digits) == least or digits.startswith("0")})


def _by_template(names: Iterable[str], template: str) -> list[tuple[int, str]]:
    """Names that fit with their numbers."""
    match = _TEMPLATE.fullmatch(template)
    if match is None:
        return []
    before, digits, _, after = match.groups()
    number = rf"[0-9]{{{digits}}}|[1-9][0-9]{{{digits},}}" if digits else "0|[1-9][0-9]*"
    pattern = re.compile(rf"{re.escape(before)}({number}){re.escape(after)}", re.IGNORECASE)
    return [(int(fits[1]), name) for name in names if (fits := pattern.fullmatch(name))]
