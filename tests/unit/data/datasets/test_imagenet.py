"""ImageNet in every form that people hold it in: the same ids, labels, bytes and pixels, or one clear line.

The oracle reads the official archives by itself, with tarfile and scipy, and Pillow decodes.
"""

import dataclasses
import io
import itertools
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import loadmat

from morphmlp.config import load_config
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainClips, ViewClips
from morphmlp.data.datasets.imagenet.prepare import ImageSources, find_sources, read_images
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage, image_bytes
from morphmlp.data.manifest import read_manifest, write_manifest
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.data.synthetic.imagenet_standin import write_imagenet_standin
from morphmlp.errors import ManifestError

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
NUM = {"train": 37, "val": 12}
POLICY = DecodePolicy(decoder="pyav", retry_with=None, limits=Limits(timeout_s=30))


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left():
    yield
    isolated_videos(POLICY.decoder, POLICY.limits).close()


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet") / "official"
    write_imagenet_standin(folder, train=NUM["train"], val=NUM["val"])
    return folder


def contents(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


@pytest.fixture(scope="module")
def truth(official):
    """`{split: {id: (label, bytes)}}` by an independent reading of the archives, and the sorted WordNet ids."""
    kit = contents(official.joinpath(DEVKIT).read_bytes())
    synsets = loadmat(io.BytesIO(kit["ILSVRC2012_devkit_t12/data/meta.mat"]), squeeze_me=True)["synsets"]
    wnid_of = {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets if int(each["num_children"]) == 0}
    wnids = sorted(wnid_of.values())
    assert [wnid_of[number] for number in sorted(wnid_of)] != wnids, "IDs in the order of the classes show nothing"
    ids = kit["ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"].split()
    train = {
        f"{name.removesuffix('.tar')}/{image.removesuffix('.JPEG')}": (wnids.index(name.removesuffix(".tar")), data)
        for name, inner in contents(official.joinpath(TRAIN).read_bytes()).items()
        for image, data in contents(inner).items()
    }
    val = {}
    for name, data in contents(official.joinpath(VAL).read_bytes()).items():
        wnid = wnid_of[int(ids[int(name[15:23]) - 1])]
        val[f"{wnid}/{name.removesuffix('.JPEG')}"] = (wnids.index(wnid), data)
    return {"train": train, "val": val}, wnids


def write_file(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def as_folders(root, images, official, *, flat_val=False):
    for split, of_split in images.items():
        for name, (_, data) in of_split.items():
            place = name.rpartition("/")[2] if flat_val and split == "val" else name
            write_file(root / split / f"{place}.JPEG", data)
    if flat_val:
        (root / "val" / "readme.txt").write_text("")
        for name, data in contents(official.joinpath(DEVKIT).read_bytes()).items():
            write_file(root / name, data)


def as_webdataset(root, images, official):
    for split, word in (("train", "train"), ("val", "validation")):
        samples = list(images[split].items())
        for shard, start in enumerate(range(0, len(samples), 10)):
            files = {}
            for name, (label, data) in samples[start : start + 10]:
                key = name.rpartition("/")[2]
                said = {"cls": b"%d" % label} if split == "train" else {"json": json.dumps({"label": label}).encode()}
                files |= {f"{key}.{kind}": content for kind, content in {"jpg": data, **said}.items()}
            write_tar(root / f"imagenet1k-{word}-{shard:04}.tar", files)


def as_parquet(root, images, official, **options):
    (root / "data").mkdir(parents=True)
    for split, word in (("train", "train"), ("val", "validation")):
        rows = [
            {"image": {"bytes": data, "path": f"{stem}_{wnid}.JPEG"}, "label": label}
            for wnid, stem, label, data in ((*name.split("/"), *rest) for name, rest in images[split].items())
        ]
        for shard in range(2):
            table = pa.Table.from_pylist(rows[shard::2])
            pq.write_table(table, root / "data" / f"{word}-{shard:05}-of-00002.parquet", row_group_size=5, **options)


FORMS = {
    "class folders": as_folders,
    "a flat val": lambda *given: as_folders(*given, flat_val=True),
    "WebDataset": as_webdataset,
    "Parquet as the hub writes it": as_parquet,
    "Parquet not compressed": lambda *given: as_parquet(*given, compression="none"),
    "Parquet in small pages": lambda *given: as_parquet(
        *given, use_dictionary=False, data_page_size=100, write_batch_size=2, data_page_version="2.0"
    ),
}


@pytest.fixture(scope="module")
def held(official, truth, tmp_path_factory):
    """The manifests of a form."""
    known = {}

    def manifests(form):
        if form not in known:
            root = official
            if form != "official":
                root = tmp_path_factory.mktemp("form") / "in"
                FORMS[form](root, truth[0], official)
            done = read_images(find_sources(root))
            for split, manifest in done.manifests.items():  # rows come back in the order of the ids
                write_manifest(manifest, root.parent / f"{form}-{split}.parquet")
            known[form] = {split: read_manifest(root.parent / f"{form}-{split}.parquet") for split in done.manifests}
        return known[form]

    return manifests


@pytest.mark.parametrize("form", ["official", *FORMS])
def test_ids_labels_and_bytes_are_those_of_an_independent_reading(form, held, truth):
    images, wnids = truth
    for split, manifest in held(form).items():
        rows = manifest.table.to_pylist()
        assert len(rows) == NUM[split]
        found = {row["video_id"]: (row["label"], image_bytes(row["path"], StoredImage.of(row))) for row in rows}
        assert found == images[split]
        assert [name.split(" ")[0] for name in manifest.class_names] == wnids
        assert (manifest.items, {row["split"] for row in rows}) == ("images", {split})
        assert [row["size_bytes"] for row in rows] == [len(found[row["video_id"]][1]) for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_stream(form, held):
    small = load_config(Path(__file__).parents[2] / "small_experiment.yaml")
    clip = dataclasses.replace(small.clip, num_frames=1, frame_stride=1)
    for split, extractor in (
        ("train", TrainClips(clip=clip, augment=small.augment)),
        ("val", ViewClips(clip=clip, views=SINGLE_VIEW)),
    ):
        order = np.random.default_rng(1).permutation(NUM[split])
        plan = MicroBatchPlan(rows=order, seed=3, epoch=2, step=0, index=0)
        streams = []
        for manifest in (held("official")[split], held(form)[split]):
            decoded = DecodeTask(extractor=extractor, policy=POLICY)(request_table(manifest, [plan]))
            ids = manifest.table["video_id"].take(decoded["row"]).to_pylist()
            streams.append((ids, *(decoded[name].to_pylist() for name in ("label", "clips", "error"))))
            assert decoded["error"].to_pylist() == [""] * NUM[split], "no image is lost"
        assert streams[0] == streams[1]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_every_image_of_the_archives_is_what_pillow_reads(held):
    modes = []
    for row in held("official")["train"].table.to_pylist():
        image = StoredImage.of(row)
        picture = Image.open(io.BytesIO(image_bytes(row["path"], image)))
        modes.append((picture.format, picture.mode))
        opened = AnyVideo(None).open(row["path"], num_frames=None, image=image)
        assert (opened.read([0]).frames[0] == np.asarray(picture.convert("RGB"))).all()
    assert {("PNG", "RGB"), ("JPEG", "CMYK"), ("JPEG", "L")} < set(modes)


def test_class_names_have_the_devkits_words(held):
    assert held("official")["val"].class_names[0] == "n01100002 blue disc, marble"


def test_where_the_counts_differ_from_imagenets_is_said(official):
    assert read_images(find_sources(official)).notes == (
        [
            "train: 37 images of 6 classes; ImageNet-1K has 1,281,167 of 1,000: a subset, or 1,281,130 are missing",
            "val: 12 images of 6 classes; ImageNet-1K has 50,000 of 1,000: a subset, or 49,988 are missing",
        ]
    )


@pytest.mark.parametrize("compression", ["none", "snappy"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_an_image_in_parquet_costs_little_more_than_its_bytes(compression, dictionary, tmp_path):
    """Of images of all sizes and kinds of content, some twice, in row groups of one page."""
    rng = np.random.default_rng(0)
    blobs = [rng.bytes(int(size)) for size in rng.integers(1, 300_000, 20)]
    blobs += [b"\0" * 150_000, b"ab" * 99_999, blobs[3], blobs[7][:70_000] + bytes(70_000) + blobs[8], b"x"]
    rows = [{"image": {"bytes": blob, "path": f"{place}.jpg"}, "label": 0} for place, blob in enumerate(blobs)]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, compression=compression, use_dictionary=dictionary)
    table = read_images(ImageSources(splits={"train": path})).manifests["train"].table
    for row in table.to_pylist():
        image, blob = StoredImage.of(row), blobs[int(row["member"].removesuffix(".jpg"))]
        assert image_bytes(row["path"], image) == blob
        assert (image.blocks_length or image.length) < len(blob) + 2 * 66_000


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def hole(path):
    """As a download leaves it that reserves the whole file first."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def without_end(path):
    """As a download leaves an archive that broke off between two files."""
    with tarfile.open(path) as archive:
        *_, last = archive.getmembers()
    path.write_bytes(path.read_bytes()[: last.offset])


def shard(root, **files):
    write_tar(root / "train.tar", {name.replace("_", "."): data for name, data in files.items()})


def parquet(root, rows, name="train.parquet", **options):
    root.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), root / name, **options)


def row(path="n00000001_1.JPEG", label=0, data=b"x"):
    return {"image": {"bytes": data, "path": path}, "label": label}


FAULTS = {
    "a training archive cut short": (lambda root: cut(root / TRAIN, 0.6), r"img_train\.tar.* is cut short or damaged"),
    "one cut between two classes": (lambda root: without_end(root / TRAIN), r"img_train\.tar: is cut short"),
    "one with a hole in it": (lambda root: hole(root / TRAIN), r"img_train\.tar.* is cut short or damaged"),
    "a validation archive cut short": (lambda root: cut(root / VAL, 0.6), r"img_val\.tar: is cut short"),
    "no tar": (lambda root: (root / VAL).write_bytes(b"<html>" * 300), r"img_val\.tar: isn't an uncompressed tar"),
    "an empty file": (lambda root: (root / VAL).write_bytes(b""), r"img_val\.tar: isn't an uncompressed tar"),
    "no devkit": (lambda root: (root / DEVKIT).unlink(), "only the devkit has their labels; give --devkit ILSVRC"),
    "a devkit cut short": (lambda root: cut(root / DEVKIT, 0.5), r"devkit_t12\.tar\.gz: can't be read as the devkit"),
    "another archive as the devkit": (
        lambda root: write_tar(root / DEVKIT, {"readme.txt": b""}),
        "holds no data/meta.mat and no data/ILSVRC2012_validation_ground_truth.txt",
    ),
    "a flat archive of other images": (
        lambda root: write_tar(root / VAL, {"ILSVRC2012_val_00000099.JPEG": b"x"}),
        "ILSVRC2012_val_00000099 isn't one of the 12 validation images that the devkit labels",
    ),
    "no images at all": (lambda root: [path.unlink() for path in root.iterdir()], "holds neither train nor val"),
    "train twice": (
        lambda root: write_file(root / "train/a/b.jpg", b""),
        "holds train more than once: ILSVRC.*--train",
    ),
    "an empty class": (
        lambda root: [(root / TRAIN).unlink(), (root / "train/n1").mkdir(parents=True)],
        "n1: holds no images",
    ),
}
SHARD_FAULTS = {
    "a sample without a label": (
        lambda root: shard(root, a_jpg=b"x", a_txt=b"1"),
        "sample a has jpg, txt; it must have",
    ),
    "a label that is no number": (lambda root: shard(root, a_jpg=b"x", a_cls=b"cat"), "sample a has cls, jpg"),
    "labels in another order": (
        lambda root: parquet(root, [row("n00000002_1.JPEG", 0), row("n00000001_1.JPEG", 1)]),
        "labels: not the ranks of the sorted WordNet ids; give --classes FILE",
    ),
    "the test set": (lambda root: parquet(root, [row("ILSVRC2012_test_1.JPEG", -1)]), "label -1 is negative"),
    "a shard that is missing": (
        lambda root: parquet(root, [row()], name="train-00000-of-00294.parquet"),
        "is one of 294 shards, but 1 are there",
    ),
    "another codec": (lambda root: parquet(root, [row()], compression="zstd"), 'with ZSTD, .*compression="none"'),
    "other columns": (lambda root: parquet(root, [{"a": 1}]), "has the columns a; it must have image"),
    "a name that is no text": (lambda root: shard(root, **{"b\udce9_jpg": b"x"}), r"b\\xe9\.jpg isn't named in UTF-8"),
    "no bytes": (lambda root: parquet(root, [row(data=None), row()]), r"n00000001_1\.JPEG has no bytes"),
    "a Parquet file cut short": (
        lambda root: [parquet(root, [row()]), cut(root / "train.parquet", 0.7)],
        "can't be read as Parquet, or is cut short",
    ),
}


@pytest.mark.parametrize("fault", [*FAULTS, *SHARD_FAULTS])
def test_what_cannot_be_used_is_one_line(fault, official, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for name in (TRAIN, VAL, DEVKIT) if fault in FAULTS else ():
        (root / name).write_bytes((official / name).read_bytes())
    spoil, words = (FAULTS | SHARD_FAULTS)[fault]
    spoil(root)
    with pytest.raises(ManifestError, match=words) as raised:
        read_images(find_sources(root))
    assert "\n" not in str(raised.value)


def test_numbers_without_names_are_named_by_a_class_list_or_the_shards(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    shard(tmp_path, a_jpg=b"x", a_cls=b"1", b_png=b"y", b_cls=b"0")
    place = {"train": tmp_path / "train.tar"}
    named = read_images(ImageSources(splits=place, classes=tmp_path / "names.txt")).manifests["train"]
    assert named.table.select(["video_id", "label"]).to_pylist() == [
        {"video_id": "dog/a", "label": 1},
        {"video_id": "cat/b", "label": 0},
    ]
    assert read_images(ImageSources(splits=place)).manifests["train"].class_names == ("0", "1")
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.Table.from_pylist([row("a.jpg", 1), row("b.jpg", 0)])
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "hub.parquet")
    of_hub = read_images(ImageSources(splits={"train": tmp_path / "hub.parquet"})).manifests["train"]
    assert of_hub.table["video_id"].to_pylist() == ["dog/a", "cat/b"]


def test_a_tar_of_one_class_and_a_folder_of_such_tars_are_named_by_it(official, tmp_path):
    for name, inner in contents(official.joinpath(TRAIN).read_bytes()).items():
        write_file(tmp_path / "train" / name, inner)
    unpacked = read_images(find_sources(tmp_path)).manifests["train"]
    whole = read_images(find_sources(official)).manifests["train"]
    assert sorted(unpacked.table["video_id"].to_pylist()) == sorted(whole.table["video_id"].to_pylist())


def test_the_standin_is_the_same_for_a_seed_and_never_put_over_something_else(official, tmp_path):
    write_imagenet_standin(tmp_path / "again", train=NUM["train"], val=NUM["val"])
    for name in (TRAIN, VAL, DEVKIT):
        assert (tmp_path / "again" / name).read_bytes() == (official / name).read_bytes()
    with pytest.raises(ManifestError, match="holds other videos"):
        write_imagenet_standin(tmp_path / "again", train=5, val=5)
    with pytest.raises(ManifestError, match="0 validation images asked for"):
        write_imagenet_standin(tmp_path / "none", train=5, val=0)


def test_the_classes_of_the_standin_are_even(truth):
    for of_split in truth[0].values():
        counts = [len(list(group)) for _, group in itertools.groupby(sorted(label for label, _ in of_split.values()))]
        assert max(counts) - min(counts) <= 1
        assert len(counts) == 6
