"""What a file is that was given for weights and isn't, from its bytes, in words that say what would be right."""

import zipfile
from pathlib import Path

from morphmlp.models.weights.describe import first_names

SAVE_ALONE = "where it was made, torch.save(model.state_dict(), FILE) saves the weights alone"
"""What whoever has the weights inside something larger must do, or ask of its maker."""

_HEAD_BYTES = 1024
_LONGEST_SAFETENSORS_HEADER = 100_000_000
_TEXT_SHOWN = 40
_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX = b"/annex/objects/"
_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The number with which `torch.save` begins in its older form, as protocol 2 pickles it."""
_MAGIC = {
    **{
        magic: f"is packed ({name}); unpack it and name the file of weights inside"
        for magic, name in (
            (b"\x1f\x8b", "gzip"),
            (b"BZh", "bzip2"),
            (b"\xfd7zXZ\x00", "xz"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
            (b"Rar!\x1a\x07", "rar"),
        )
    },
    **{
        magic: f"is {name}, not weights of PyTorch"
        for magic, name in (
            (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
            (b"\x93NUMPY", "a NumPy array"),
            (b"%PDF", "a PDF"),
            (b"\x89PNG", "a picture (PNG)"),
            (b"\xff\xd8\xff", "a picture (JPEG)"),
            (b"PAR1", "a Parquet table"),
            (b"GGUF", "a GGUF file"),
        )
    },
}
"""What files begin with, and what is then said of them."""


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name: the length of a JSON header, and that."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_SAFETENSORS_HEADER


def what_it_is(path: Path) -> str | None:
    """What follows `FILE: `, as in `is empty; copy it again`; None for what `torch.save` can have written.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "is empty; download or copy it again"
    if head.startswith(_ZIP):
        return _what_zip_it_is(path)
    if head.startswith(_TORCH_LEGACY):
        return None
    return _what_beginning_it_is(head)


def _what_beginning_it_is(head: bytes) -> str:
    if known := next((words for magic, words in _MAGIC.items() if head.startswith(magic)), None):
        return known
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it and name the file of weights inside"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return f"is a Python pickle that torch.save didn't write, and only running its code could read it; {SAVE_ALONE}"
    if not any(head):
        return "begins with zeros alone: it was downloaded or copied in part; do it again"
    return _what_text_it_is(head) or f"is of no form that is known; its first bytes are {head[:8].hex(' ')}"


def what_is_in_folder(path: Path) -> str:
    """What follows `FOLDER: ` where a file of weights belongs; files of weights in it are named."""
    patterns = ("*.pth", "*.pt", "*.safetensors", "*/checkpoint.pt")
    # For a run's folder those of its checkpoints.
    below = [file for place in (path, path / "checkpoints") for pattern in patterns for file in place.glob(pattern)]
    found = sorted(below, key=lambda file: file.stat().st_mtime, reverse=True)
    if not found:
        return f"is a folder; name a file (of a checkpoint {path}/checkpoint.pt)"
    return f"is a folder; name a file, as in {found[0]}" + (f" ({len(found)} are in it)" if len(found) > 1 else "")


def _what_zip_it_is(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "is truncated or damaged: it begins as torch.save writes, but has no end; download or copy it again"
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return f"is a TorchScript archive, code and weights in one; {SAVE_ALONE}"
    if "models/model.json" in inside or "archive_format" in inside:
        return f"is a program of torch.export, code and weights in one; {SAVE_ALONE}"
    if "data.pkl" in inside:
        return None
    return f"is a zip archive ({first_names(names) or 'empty'}); unpack it and name the file of weights inside"


def _what_text_it_is(head: bytes) -> str | None:
    text = head.decode("utf-8", errors="ignore").lstrip("\ufeff").lstrip()
    if head.startswith(_LFS):
        size = next((line[5:] for line in text.splitlines() if line.startswith("size ")), "?")
        return f"is a Git-LFS pointer, not the file of {size} bytes that it stands for; `git lfs pull` fetches that"
    if _ANNEX in head:
        return "is a pointer of git-annex, not the file that it stands for; `git annex get` fetches that"
    if text.startswith("<") and ("<html" in text.lower() or text.lower().startswith("<!doctype html")):
        return (
            "is a web page (HTML), as a download leaves it where a page asks first; open its address in a browser, "
            "and save the file behind the page"
        )
    if not text or any(ord(letter) < 32 and letter not in "\t\r\n\f" for letter in text):
        return None
    first = " ".join(text.split())[:_TEXT_SHOWN]
    return f"is a text, not weights; it begins {first!r}"
