"""Where pictures of predictions go: one file that an option names, or a folder with a file of its own for each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphmlp.data.datasets.video_folder import is_text, without_extension
from morphmlp.data.decoding.stored_frames.frame_names import shown
from morphmlp.errors import ConfigError
from morphmlp.files import atomic_file
from morphmlp.prediction.inputs import STANDARD_INPUT
from morphmlp.targets import folder_fault, writable_folder

IMAGE = ".png"
_ENDING = re.compile(r"\.[a-z][a-z0-9]{0,4}", re.IGNORECASE)
"""What looks like the ending of a file, and not like a part of a folder's name, as in `run-1.5`."""


class Places:
    """The places that an option names: of the one file, or of each input's file in a folder."""

    def __init__(
        self, option: str, target: Path, inputs: tuple[str, ...], *, force: bool, video: tuple[str, ...] = (".mp4",)
    ) -> None:
        """Refuse a place that can't be written to; with `force` files that are there are written over.

        `video` are the endings that a video may be written with, in a folder the first one; images are .png.

        Raises:
            ConfigError: It can't, several files would go into one, or the file is there.
        """
        self._option, self._force, self._video = option, force, video
        self._endings = tuple(dict.fromkeys((*video, IMAGE)))
        self._target = target
        self._is_file = target.suffix.lower() in self._endings and not target.is_dir()
        self._taken: set[str] = set()
        if not is_text(str(target)):
            raise self._fault(shown(str(target)), "isn't UTF-8 text; name another place")
        if not self._is_file:
            if _ENDING.fullmatch(target.suffix) and not target.exists():
                raise self._fault(target, f"must end in {self._in_words}, or be a folder that is there")
            writable_folder(target, option)
            return
        if target.exists() and not target.is_file():
            raise self._fault(target, f"is no regular file; name a file that ends in {video[0]}")
        if fault := folder_fault(target.parent):
            raise self._fault(target, f"{fault}; name another file")
        if len(inputs) > 1 or inputs[0] == STANDARD_INPUT or Path(inputs[0]).is_dir():
            raise self._fault(target, "is one file for several inputs; name a folder")
        self._require_free(target, inputs[0])

    def place_for(self, path: str, *, image: bool) -> Path:
        """Where the picture of a file goes.

        Raises:
            ConfigError: It would be of another kind than the file's name says, or replace a file.
        """
        endings = (IMAGE,) if image else self._video
        if self._is_file:
            place = self._target
            if place.suffix.lower() not in endings:
                written = " or ".join(endings)
                raise self._fault(place, f"{'an image' if image else 'a video'} is written as {written}")
        else:
            stem, number = shown(without_extension(Path(path).name)[0]), 1  # FFmpeg takes names in UTF-8 alone
            name = stem
            while name in self._taken:
                number += 1
                name = f"{stem}-{number}"
            self._taken.add(name)
            place = self._target / f"{name}{endings[0]}"
        self._require_free(place, path)
        return place

    @contextmanager
    def written(self, place: Path) -> Iterator[Path]:
        """A path to write to that takes the place's name at the end.

        Raises:
            ConfigError: It can't be written.
        """
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place) as unfinished:
                unfinished.touch()
                yield unfinished
        except OSError as error:  # FFmpeg's errors are among them
            raise self._fault(place, f"can't be written: {error.strerror or error}") from None

    @property
    def _in_words(self) -> str:
        return f"{', '.join(self._endings[:-1])} or {self._endings[-1]}"

    def _require_free(self, place: Path, path: str) -> None:
        if not place.exists():
            return
        if Path(path).exists() and place.samefile(path):
            raise self._fault(place, "is the file that is looked at; name another one")
        if not self._force:
            raise self._fault(place, "exists already; --force writes over it")

    def _fault(self, place: Path | str, fault: str) -> ConfigError:
        return ConfigError([f"{self._option}: {place}: {fault}"])
