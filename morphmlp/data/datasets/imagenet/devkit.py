"""What the official development kit says: the classes with their words, and the labels of the validation images.

`data/meta.mat` gives each synset an ILSVRC2012_ID; the classes are the leaves, those without children. Line i of the
ground truth is the ID of validation image i. The IDs aren't the order of the classes: that is the rank of a WordNet id
among the sorted ones, as in every published network.
"""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from morphmlp.errors import ManifestError

ARCHIVE, FOLDER = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12"
_META, _TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True, kw_only=True)
class Devkit:
    """The classes and the validation labels."""

    words: dict[str, str]
    """Words of each class by its WordNet id, in the order of the ids: label k is the k-th."""
    validation: Sequence[str]
    """WordNet ids of the validation images, the first is that of image 1."""


def read_devkit(path: Path) -> Devkit:
    """Read the devkit, packed as it is distributed or unpacked.

    Raises:
        ManifestError: It's none, or doesn't hold together.
    """
    meta, truth = _files(path)
    leaves = _leaves(meta, path)
    ids = truth.decode("ascii", errors="replace").split()
    if wrong := [(number, text) for number, text in enumerate(ids, 1) if not text.isdigit() or int(text) not in leaves]:
        number, text = wrong[0]
        raise ManifestError(
            f"{path}: line {number} of {_TRUTH} is {text!r}, not the ID of one of its {len(leaves)} classes"
        )
    if not ids:
        raise ManifestError(f"{path}: {_TRUTH} is empty; get the devkit again")
    return Devkit(words=dict(sorted(leaves.values())), validation=[leaves[int(text)][0] for text in ids])


def _files(path: Path) -> tuple[bytes, bytes]:
    """The content of the two files."""
    if path.is_dir():
        places = [path / FOLDER, path, path.parent]
        root = next((place for place in places if (place / _META).is_file() and (place / _TRUTH).is_file()), None)
        if root is None:
            raise ManifestError(f"{path}: holds no {_META} with {_TRUTH}; name the folder that {ARCHIVE} unpacks to")
        return (root / _META).read_bytes(), (root / _TRUTH).read_bytes()
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                for name in (_META, _TRUTH):
                    if member.name.endswith(name) and (content := archive.extractfile(member)) is not None:
                        found[name] = content.read()
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: no such file; --devkit names {ARCHIVE} or the folder that it unpacks to"
        ) from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ManifestError(f"{path}: can't be read as the devkit ({error}); get {ARCHIVE} again") from None
    if missing := [name for name in (_META, _TRUTH) if name not in found]:
        raise ManifestError(f"{path}: holds no {' and no '.join(missing)}; the devkit of tasks 1 and 2 is {ARCHIVE}")
    return found[_META], found[_TRUTH]


def _leaves(content: bytes, path: Path) -> dict[int, tuple[str, str]]:
    """WordNet id and words of each class by its ILSVRC2012_ID."""
    from scipy.io import loadmat  # noqa: PLC0415 (for this form alone)

    try:
        synsets = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        leaves = {
            int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"]))
            for row in synsets
            if not row["num_children"]
        }
    except Exception as error:  # noqa: BLE001 (scipy raises many types at damaged files)
        raise ManifestError(f"{path}: its {_META} can't be read ({' '.join(str(error).split())})") from None
    if len({wnid for wnid, _ in leaves.values()}) < len(leaves) or not leaves:
        raise ManifestError(f"{path}: its {_META} names classes twice, or none")
    return leaves
