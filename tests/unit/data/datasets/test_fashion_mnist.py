import gzip
import io
import json
import struct
import tarfile
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision.datasets import FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file

from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.data.clips.extract import train_extractor
from morphmlp.data.datasets.fashion_mnist import CLASS_NAMES, Form, read_idx, write_fashion_mnist
from morphmlp.data.decoding.isolation.isolated import Limits
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage, image_bytes
from morphmlp.data.manifest import read_manifest
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import Cursor, TrainPlan
from morphmlp.errors import ManifestError

FORMS = get_args(Form)
COUNTS = {"train": 200, "t10k": 30}


def write_idx(path, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wb") as file:
        file.write(head + array.tobytes())


def write_official(folder, *, ending=".gz"):
    """A small copy of the four official files: smooth pictures, as JPEG is made for."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, count in COUNTS.items():
        coarse = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        pixels = np.stack([np.asarray(Image.fromarray(each).resize((28, 28))) for each in coarse])
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", pixels)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", (np.arange(count) % 10).astype(np.uint8))
    return folder


@pytest.fixture
def official(tmp_path):
    return write_official(tmp_path / "official")


def rows_of(folder, split):
    return read_manifest(folder / f"{split}.parquet").table.to_pylist()


def test_classes_have_the_official_order():
    assert list(CLASS_NAMES) == FashionMNIST.classes


@pytest.mark.parametrize("ending", [".gz", ""])
def test_official_files_are_read_as_torchvision_reads_them(tmp_path, ending):
    plain, folder = write_official(tmp_path / "plain", ending=""), write_official(tmp_path / "folder", ending=ending)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        pixels, labels = read_idx(folder, split)
        assert np.array_equal(pixels, read_image_file(str(plain / f"{prefix}-images-idx3-ubyte")).numpy())
        assert np.array_equal(labels, read_label_file(str(plain / f"{prefix}-labels-idx1-ubyte")).numpy())


@pytest.mark.parametrize("form", FORMS)
def test_every_official_image_is_written_once_with_its_label_and_pixels(tmp_path, official, form):
    write_fashion_mnist(official, tmp_path / "out", form=form)
    written = {split: rows_of(tmp_path / "out", split) for split in ("train", "val", "test")}
    assert {split: len(rows) for split, rows in written.items()} == {"train": 190, "val": 10, "test": 30}
    assert sorted(row["label"] for row in written["val"]) == list(range(10))
    for split, rows in (("train", written["train"] + written["val"]), ("test", written["test"])):
        pixels, labels = read_idx(official, split)
        by_number = {int(row["video_id"].rpartition("/")[2]): row for row in rows}
        assert sorted(by_number) == list(range(len(labels)))
        for number, row in by_number.items():
            assert row["label"] == labels[number]
            assert row["video_id"] == f"{split}/{CLASS_NAMES[row['label']].replace('/', '-')}/{number:05d}"
            with Image.open(io.BytesIO(image_bytes(row["path"], StoredImage.of(row)))) as image:
                assert image.mode == "L"
                assert np.abs(np.asarray(image).astype(int) - pixels[number]).mean() < 2


def test_every_form_makes_the_same_stream_of_clips(tmp_path, official):
    clip = ClipConfig(
        sampling="dense_decord", num_frames=1, frame_stride=1, crop_size=32, short_edge=32, channel_order="rgb"
    )
    augment = AugmentConfig(
        repeats=1, short_edge=None, rand_augment=None, scale=(0.7, 1.0), aspect=(0.9, 1.1), flip=0.5, erase=0.5
    )
    policy = DecodePolicy(decoder="pyav", retry_with=None, limits=Limits(timeout_s=60.0))
    decode = DecodeTask(extractor=train_extractor(clip, augment), policy=policy)
    streams = {}
    for form in FORMS:
        write_fashion_mnist(official, tmp_path / form, form=form)
        manifest = read_manifest(tmp_path / form / "train.parquet")
        plan = TrainPlan(num_videos=len(manifest), global_batch_size=64, micro_batch_size=32, seed=3)
        requests = request_table(manifest, list(plan.micro_batches(Cursor(epoch=1), worker=0, num_workers=1)))
        streams[form] = (manifest.fingerprint(), decode(requests).drop_columns(["cpu_s"]))
    assert streams["folder"][1].num_rows == 128
    assert streams["folder"][1]["error"].to_pylist() == [""] * 128
    assert streams["folder"] == streams["tar"] == streams["parquet"]


def test_shards_are_those_of_webdataset_and_of_the_hub(tmp_path, official):
    """Read by what others read them with: `tar` and pyarrow."""
    for form in ("tar", "parquet"):
        write_fashion_mnist(official, tmp_path / form, form=form)
    with tarfile.open(tmp_path / "tar" / "shards" / "train-000000.tar") as archive:
        assert archive.getnames()[:4] == ["00000.jpg", "00000.cls", "00001.jpg", "00001.cls"]
        assert [archive.extractfile(f"{number:05d}.cls").read() for number in (3, 12)] == [b"3", b"2"]
    shard = pq.read_table(tmp_path / "parquet" / "data" / "test-00000-of-00001.parquet")
    assert shard["label"].to_pylist() == [number % 10 for number in range(30)]
    assert shard["image"][7].as_py()["path"] == "00007.jpg"
    features = json.loads(shard.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"]["names"] == list(CLASS_NAMES)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_command_again_changes_nothing(tmp_path, official, form):
    def content(folder):
        return {path: path.read_bytes() for path in sorted(folder.rglob("*.*"))}

    first = write_fashion_mnist(official, tmp_path / "out", form=form)
    before = content(tmp_path / "out")
    second = write_fashion_mnist(official, tmp_path / "out", form=form)
    assert content(tmp_path / "out") == before
    assert [each.fingerprint() for each in first.values()] == [each.fingerprint() for each in second.values()]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def with_labels(labels):
    return lambda path: write_idx(path, np.asarray(labels, dtype=np.uint8))


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("t10k-labels-idx1-ubyte.gz", lambda path: path.unlink(), "no such file; Debian's package"),
        ("train-images-idx3-ubyte.gz", truncate, "can't be read"),
        ("train-images-idx3-ubyte.gz", with_labels([1, 2, 3]), "begins with 0x00000801"),
        ("t10k-images-idx3-ubyte.gz", lambda path: path.write_bytes(gzip.compress(b"")), "has 0 bytes"),
        ("t10k-labels-idx1-ubyte.gz", with_labels([1, 2, 3]), "30 images and 3 labels"),
        ("t10k-labels-idx1-ubyte.gz", with_labels([10] * 30), "labels of t10k must be 0 to 9"),
    ],
)
def test_what_can_not_be_used_is_named_and_no_manifest_is_written(tmp_path, official, file, damage, says):
    damage(official / file)
    with pytest.raises(ManifestError, match=says) as caught:
        write_fashion_mnist(official, tmp_path / "out")
    assert str(official) in str(caught.value)
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, official):
    with pytest.raises(ManifestError, match="holds something else than Fashion-MNIST as folder; choose another"):
        write_fashion_mnist(official, official)
    write_fashion_mnist(official, tmp_path / "out", form="tar")
    with pytest.raises(ManifestError, match="holds something else than Fashion-MNIST as parquet; choose another"):
        write_fashion_mnist(official, tmp_path / "out", form="parquet")
