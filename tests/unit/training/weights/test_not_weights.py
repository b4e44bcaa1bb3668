"""What is said of a file that was given for weights and isn't: what it is, and never to run what is in it."""

import argparse
import gzip
import hashlib
import io
import lzma
import os
import pickle
import re
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch

from morphmlp.errors import CheckpointError
from morphmlp.training.checkpoint.content import FORMAT, read_content
from morphmlp.training.weights.file import read_weights


def refusal_of(path):
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def archive(kind, *names):
    """A tar or zip file of others."""
    written = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(written, "w") as file:
            for name in names:
                file.writestr(name, b"abc")
    else:
        with tarfile.open(fileobj=written, mode="w") as file:
            for name in names:
                file.addfile(tarfile.TarInfo(name))
    return written.getvalue()


def written_by(save, *content, **options):
    written = io.BytesIO()
    save(*content, written, **options)
    return written.getvalue()


def numpy_archive():
    return written_by(lambda array, file: np.savez(file, array=array), np.zeros(3))


def script():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return written_by(torch.jit.save, torch.jit.script(torch.nn.Linear(2, 2)))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 84321001\n"
PAGE = b"<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>"
FOREIGN = {
    "empty": (b"", "is empty; download or copy it again"),
    "page": (PAGE, "is a web page (HTML)"),
    "page after a mark and lines": (b"\xef\xbb\xbf\n\n<HTML lang=en>" + PAGE, "is a web page (HTML)"),
    "page of XHTML": (b'<?xml version="1.0"?>\n<html xmlns="x">', "is a web page (HTML)"),
    "LFS": (LFS, "is a Git-LFS pointer, not the file of 84321001 bytes that it stands for; `git lfs pull` "),
    "annex": (b"/annex/objects/SHA256E-s84--ab.pth\n", "is a pointer of git-annex"),
    "text": (b"hello world, this is a text\n" * 30, "is a text, not weights; it begins 'hello world, this is a text"),
    "umlauts": ("größe\n".encode() * 300, "is a text, not weights; it begins 'größe größe"),
    "JSON": (b'{"model": 1}', "is a text, not weights; it begins '{\"model\": 1}'"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "is a text, not weights; it begins '<?xml "),
    "zeros": (bytes(4000), "begins with zeros alone: it was downloaded or copied in part"),
    "noise": (b"\x01\x00\xfe" * 500, "is of no form that is known; its first bytes are 01 00 fe 01"),
    "zip": (
        archive("zip", "a/readme.txt", "b.pth", "c", "d", "e"),
        "is a zip archive (a/readme.txt, b.pth, c, and 2 more); unpack it and name the file of weights inside",
    ),
    "empty zip": (archive("zip"), "is of no form that is known"),
    "NumPy's zip": (numpy_archive(), "is a zip archive (array.npy); unpack it"),
    "tar": (archive("tar", "w.pth"), "is a tar archive; unpack it and name the file of weights inside"),
    "gzip": (gzip.compress(archive("tar", "w.pth")), "is packed (gzip); unpack it"),
    "xz": (lzma.compress(b"x"), "is packed (xz); unpack it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file, not weights of PyTorch"),
    "TorchScript": (script(), "is a TorchScript archive, code and weights in one; where it was made, torch.save(model"),
    "pickle": (pickle.dumps({"format": FORMAT}), "is a Python pickle that torch.save didn't write, and only running "),
    "pickled module": (
        written_by(torch.save, torch.nn.Linear(2, 2)),
        "holds more than tensors and plain values (torch.nn.modules.linear.Linear), and only running its code could ",
    ),
    "options beside": (
        written_by(torch.save, {"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}),
        "holds more than tensors and plain values (argparse.Namespace), and only running its code could read that; ",
    ),
    "older form": (
        written_by(torch.save, argparse.Namespace(lr=1), _use_new_zipfile_serialization=False),
        "holds more than tensors and plain values (argparse.Namespace), and ",
    ),
    "safetensors of nothing": (b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "isn't a MorphMLP: of 0 tensors none is "),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_of_something_else_is_named_and_never_advised_to_be_run(kind, name, tmp_path):
    content, words = FOREIGN[kind]
    (tmp_path / name).write_bytes(content)
    refusal = refusal_of(tmp_path / name)
    assert refusal.startswith(words)
    assert "weights_only" not in refusal
    assert "trust" not in refusal


@pytest.mark.parametrize("kind", ["page", "pickle", "pickled module", "TorchScript"])
def test_a_checkpoint_of_a_run_has_no_such_advice_either(kind, tmp_path):
    content = FOREIGN[kind][0]
    with pytest.raises(CheckpointError) as caught:
        read_content(io.BytesIO(content), size=len(content), sha256=hashlib.sha256(content).hexdigest())
    assert re.match("not ours: it (is truncated, or not what|holds more than) ", str(caught.value))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "is a folder; name a file (of a checkpoint {folder}/checkpoint.pt)"),
        (["notes.txt"], "is a folder; name a file (of a checkpoint {folder}/checkpoint.pt)"),
        (["w.pth"], "is a folder; name a file, as in {folder}/w.pth"),
        (
            ["checkpoints/step-1/checkpoint.pt", "checkpoints/step-2/checkpoint.pt"],
            "is a folder; name a file, as in {folder}/checkpoints/step-2/checkpoint.pt (2 are in it)",
        ),
    ],
)
def test_of_a_folder_the_newest_file_of_weights_is_named(files, words, tmp_path):
    for age, name in enumerate(files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    assert refusal_of(tmp_path) == words.format(folder=tmp_path)
