"""Whether machines see the same files: what one of them is asked, what it sees, and what is wrong with all answers.

Imports little: it runs on every machine of a cluster before anything else does.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from morphmlp.errors import ClusterError
from morphmlp.targets import folder_fault

PATIENCE_S = 5.0
"""Time for a new file to come up on another machine."""
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a machine is asked."""

    marks: Mapping[str, str] = field(default_factory=dict)
    """Fresh files of the asking machine, by the field that names their folder; one more is to be written to each."""
    videos: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Some videos by the field that names their manifest."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Folders that the machine must be able to write to, by the field that names them; others needn't see them."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a machine saw."""

    written: Mapping[str, str] = field(default_factory=dict)
    """The files next to the marks, by field."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Of the folders of the marks: what is wrong with them, by field."""
    own_faults: Mapping[str, str] = field(default_factory=dict)
    """Fresh files in folders of the machine's own, by field."""
    unseen: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Videos that can't be read, by field, each with the reason."""


@contextmanager
def marked(folders: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A fresh file in each of these folders (by field; made if need be), gone at the end with what was put next to it.

    Raises:
        ClusterError: A folder can't be written to.
    """
    marks: dict[str, str] = {}
    try:
        for named_by, folder in folders.items():
            mark = Path(folder) / f".seen-{uuid.uuid4().hex}"
            try:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.write_text(mark.name, encoding="utf-8")
            except OSError as error:
                raise ClusterError(f"{named_by}: {folder} can't be written to: {error.strerror}") from None
            marks[named_by] = str(mark)
        yield marks
    finally:
        for written in marks.values():
            for file in Path(written).parent.glob(f"{Path(written).name}*"):
                file.unlink(missing_ok=True)


def answer(question: Question) -> Answer:
    """What this machine sees of what is asked."""
    written: dict[str, str] = {}
    faults: dict[str, str] = {}
    for named_by, mark in question.marks.items():
        folder = Path(mark).parent
        if (reason := _unreadable(Path(mark), patience_s=PATIENCE_S)) is not None:
            faults[named_by] = f"doesn't see what the command has just written to {folder} ({reason})"
            continue
        own = Path(f"{mark}-{uuid.uuid4().hex}")
        try:
            own.write_text(own.name, encoding="utf-8")
        except OSError as error:
            faults[named_by] = f"can't write to {folder} ({error.strerror})"
            continue
        written[named_by] = str(own)
    unseen = {
        named_by: {path: reason for path in paths if (reason := _unreadable(Path(path))) is not None}
        for named_by, paths in question.videos.items()
    }
    own_faults = {named_by: fault for named_by, folder in question.own.items() if (fault := folder_fault(Path(folder)))}
    return Answer(written=written, faults=faults, own_faults=own_faults, unseen=unseen)


def faults_of(answers: Sequence[tuple[str, Answer]], here: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each field and machine that isn't as the others are; `here` are videos that this machine can read."""
    found = []
    for node, given in answers:
        described = dict(given.faults)
        for named_by, file in given.written.items():
            if _unreadable(Path(file), patience_s=PATIENCE_S) is not None:
                described[named_by] = f"writes to a {Path(file).parent} of its own, whose files aren't seen here"
        found += [
            f"{named_by}: node {node} {fault}; name a folder that all nodes which train have mounted at the same path"
            for named_by, fault in described.items()
        ]
        found += [
            f"{named_by}: node {node}: {fault}; name a folder that all nodes which decode can write to"
            for named_by, fault in given.own_faults.items()
        ]
    for node, given in answers:
        for named_by, unseen in given.unseen.items():
            elsewhere = {path: who for path in unseen if (who := _who_sees(path, named_by, answers, here)) is not None}
            if elsewhere:
                path, who = next(iter(elsewhere.items()))
                found.append(
                    f"{named_by}: node {node} can't read {path} ({unseen[path]}), which {who} can; mount the videos at "
                    "the same path on all nodes that decode, or name those that have them with ingest.node_labels"
                )
    return found


def readable(videos: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Those that this machine can read."""
    return {named_by: [path for path in paths if _unreadable(Path(path)) is None] for named_by, paths in videos.items()}


def _who_sees(
    path: str, named_by: str, answers: Sequence[tuple[str, Answer]], here: Mapping[str, Sequence[str]]
) -> str | None:
    for node, given in answers:
        if named_by in given.unseen and path not in given.unseen[named_by]:
            return f"node {node}"
    return "this machine" if path in here.get(named_by, ()) else None


def _unreadable(path: Path, *, patience_s: float = 0.0) -> str | None:
    """Why a file, or a folder of frames, can't be read."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if path.is_dir():
                next(path.iterdir(), None)
            else:
                with path.open("rb") as file:
                    file.read(1)
        except OSError as error:
            if time.monotonic() >= deadline:
                return error.strerror or str(error)
            time.sleep(_POLL_S)
        else:
            return None
