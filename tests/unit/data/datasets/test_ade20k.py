"""ADEChallengeData2016 as it lies on disk: read exactly, its 0 ignored once, and everything else that is met named."""

import zlib

import numpy as np
import pytest
from PIL import Image

from morphmlp.data.datasets.ade20k import class_names, read_ade20k
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.errors import ManifestError

SIZE = (24, 16)
"""Width and height."""


def write_pair(root, split, number, values, *, mode="RGB", size=SIZE):
    """An image and a map of 0 but for its first pixels, which have these values; returns the map's path."""
    folder, name = {"train": "training", "val": "validation"}[split], f"ADE_{split}_{number:08d}"
    for kind in ("images", "annotations"):
        (root / kind / folder).mkdir(parents=True, exist_ok=True)
    Image.new(mode, SIZE).save(root / "images" / folder / f"{name}.jpg")
    labels = np.zeros(size[::-1], dtype=np.uint8)
    labels.reshape(-1)[: len(values)] = values
    path = root / "annotations" / folder / f"{name}.png"
    Image.fromarray(labels).save(path)
    return path


def write_set(root, *, greatest=150, more=()):
    for number, values in enumerate([(1, 2, greatest), (3, 4), (5, *more)], 1):
        write_pair(root, "train", number, values)
    write_pair(root, "val", 1, (greatest, *more))
    return root


def message_of(root, **options):
    with pytest.raises(ManifestError) as raised:
        read_ade20k(root, **options)
    return str(raised.value)


def test_pairs_become_manifests_whose_maps_read_as_mmsegmentation_reads_them(tmp_path):
    write_set(tmp_path / "ADEChallengeData2016")
    path = write_pair(tmp_path / "ADEChallengeData2016", "train", 9, (0, 1, 77, 150), mode="L")
    done = read_ade20k(tmp_path)
    assert {split: len(manifest) for split, manifest in done.manifests.items()} == {"train": 4, "val": 1}
    train = done.manifests["train"]
    assert (train.task, train.items, len(train.class_names)) == ("segmentation", "images", 150)
    row = train.table.to_pylist()[-1]
    assert row["video_id"] == "ADE_train_00000009"
    assert row["map_path"] == str(path)
    assert row["map_crc32"] == zlib.crc32(path.read_bytes())
    # mmsegmentation's words, on what Pillow reads
    expected = np.asarray(Image.open(path)).astype(int)
    expected[expected == 0] = 255
    expected = expected - 1
    expected[expected == 254] = 255
    assert sorted(set(expected.reshape(-1))) == [0, 76, 149, 255]
    label_map = AnyVideo(None).open(row["map_path"], num_frames=None, image=StoredImage.of_map(row))
    assert np.array_equal(label_map.read([0]).frames[0, ..., 0], expected)
    image = AnyVideo(None).open(row["path"], num_frames=None, image=StoredImage.of(row))
    assert image.read([0]).frames.shape == (1, 16, 24, 3)
    assert "train: images read as they are: 1 grey" in done.notes
    assert "train: 4 images, the benchmark has 20,210" in done.notes


def test_the_classes_are_those_of_the_file_next_to_the_data_or_the_published_ones(tmp_path):
    names, notes = class_names(tmp_path)
    assert (len(names), len(set(names)), names[0], names[8], names[149]) == (
        150,
        150,
        "wall",
        "windowpane, window",
        "flag",
    )
    assert "names of the 150 classes are those of the published list" in notes[0]
    # As the original has it: blanks at the end of names and behind numbers.
    info = tmp_path / "objectInfo150.txt"
    info.write_text("Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t1\t1\tbed \n2 \t0.1\t1\t1\tpainting, picture\n")
    assert class_names(tmp_path)[0] == ("bed", "painting, picture")
    info.write_text("Idx\tRatio\tTrain\tVal\tName\n" + "".join(f"{k}\t0\t1\t1\t{n} \n" for k, n in enumerate(names, 1)))
    assert class_names(tmp_path) == (names, [])
    info.write_text("Idx\tRatio\tTrain\tVal\tName\n2\t0.1\t1\t1\tbed\nwater\n")
    with pytest.raises(ManifestError, match=r"line 2, line 3: must be Idx, Ratio, Train, Val, Name with tabs"):
        class_names(tmp_path)


def test_reduced_maps_are_recognised_and_taken_by_name_alone(tmp_path):
    write_set(tmp_path, greatest=149, more=(255,))
    message = message_of(tmp_path)
    assert "2 of 4 label maps have the value 255 of reduced ones (as ADE_train_00000003)" in message
    assert "0 the value 150 of released ones (none); the greatest other is 149" in message
    assert (
        "they are reduced, and read as as-released ones every class would be its neighbour; say --maps reduced"
        in message
    )
    done = read_ade20k(tmp_path, maps="reduced")
    assert done.manifests["train"].table["map_zero_is_ignored"].to_pylist() == [False] * 3
    row = done.manifests["val"].table.to_pylist()[0]
    found = AnyVideo(None).open(row["map_path"], num_frames=None, image=StoredImage.of_map(row)).read([0]).frames
    assert found[0, 0, :3, 0].tolist() == [149, 255, 0]


def test_released_maps_are_not_taken_for_reduced_ones_and_both_kinds_together_are_refused(tmp_path):
    write_set(tmp_path / "a")
    assert "they are as-released, and read as reduced ones" in message_of(tmp_path / "a", maps="reduced")
    write_pair(tmp_path / "a", "train", 7, (255, 149))
    for maps in ("as-released", "reduced"):
        assert "keep one kind, classes of the other are shifted by one" in message_of(tmp_path / "a", maps=maps)


def test_maps_that_show_neither_are_taken_as_said_with_a_word(tmp_path):
    write_set(tmp_path, greatest=20)
    assert any("no label map has 255 or 150, which would show that" in note for note in read_ade20k(tmp_path).notes)


def test_every_pair_that_cannot_be_used_is_named_and_left_out_only_when_asked(tmp_path):
    write_set(tmp_path)
    annotations, images = tmp_path / "annotations/training", tmp_path / "images/training"
    write_pair(tmp_path, "train", 10, (1,), size=(16, 24))
    for number in range(11, 16):
        write_pair(tmp_path, "train", number, (151, 150, 200, 201, 202))
    write_pair(tmp_path, "train", 20, ()).unlink()
    write_pair(tmp_path, "train", 21, ())
    (images / "ADE_train_00000021.jpg").unlink()
    Image.new("RGB", SIZE).save(write_pair(tmp_path, "train", 30, ()))
    Image.fromarray(np.full(SIZE[::-1], 4000, dtype=np.uint16)).save(write_pair(tmp_path, "train", 31, ()))
    write_pair(tmp_path, "train", 40, ())
    (images / "ADE_train_00000040.jpg").write_bytes(b"<html>")
    # Palettes and 16 bits with class numbers are as good as 8 bits.
    palette = Image.fromarray(np.full(SIZE[::-1], 7, dtype=np.uint8), "L")
    palette.putpalette(bytes(range(256)) * 3)
    palette.save(write_pair(tmp_path, "train", 50, ()))
    Image.fromarray(np.full(SIZE[::-1], 150, dtype=np.uint16)).save(write_pair(tmp_path, "train", 51, ()))
    (annotations / "Thumbs.db").write_bytes(b"x")

    lines = message_of(tmp_path).splitlines()
    assert [line.removeprefix(f"{tmp_path}: ") for line in lines] == [
        "1 of 17 images without a label map: ADE_train_00000020",
        "1 of 17 label maps without an image: ADE_train_00000021",
        f"1 of 17 images that can't be read: {images}/ADE_train_00000040.jpg isn't an image",
        f"2 of 17 label maps that can't be read: {annotations}: ADE_train_00000030.png has colours (RGB) where a label "
        "map has one number a pixel; the full ADE20K download stores such maps, ADEChallengeData2016 is the one with "
        "class numbers, and colours of one's own must be made numbers or a palette first, ADE_train_00000031; get the "
        "archive again where files are damaged",
        "1 of 17 label maps of another size than their image: ADE_train_00000010 (image 24x16, map 16x24 pixels)",
        "5 of 17 label maps with labels outside the classes: ADE_train_00000011 (151, 200, 201 and more), "
        "ADE_train_00000012 (151, 200, 201 and more), ADE_train_00000013 (151, 200, 201 and more) and 2 more; the 150 "
        "classes are 1 to 150, and 0 is ignored",
        "nothing was written; --leave-out-faulty goes on without these pairs",
    ]
    done = read_ade20k(tmp_path, leaves_out=True)
    train = done.manifests["train"]
    assert (len(train), len(train.available()), len(done.left_out)) == (15, 5, 11)
    assert done.left_out[0].split("\t")[:3] == [
        "train",
        "ADE_train_00000010",
        "label maps of another size than their image",
    ]
    assert [note for note in done.notes if "passed over" in note] == ["train: passed over 1 .db"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((), "holds nothing, not the folders images and annotations of ADEChallengeData2016"),
        (("ADEChallengeData2016.zip",), "holds ADEChallengeData2016.zip; unpack it"),
        (
            ("images/training/a/abbey/ADE_train_00000001_seg.png",),
            "is the full ADE20K download, whose maps have colours",
        ),
        (("ADE20K_2021_17_01/index_ade20k.pkl",), "is the full ADE20K download"),
        (
            ("images/training/x.jpg", "annotations/validation/x.png"),
            "annotations/training: no such folder; .* is there",
        ),
        (("images/testing/x.jpg", "annotations/x.png"), "train: isn't there"),
        (("images/training/x.txt", "annotations/training/x.txt"), "images/training: holds no images"),
    ],
)
def test_another_tree_is_named_for_what_it_is(made, message, tmp_path):
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ManifestError, match=message):
        read_ade20k(tmp_path)


def test_the_archive_instead_of_the_folder_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ManifestError, match=r"a\.zip: is a file and no folder; unpack it \(`unzip .*a\.zip`\)"):
        read_ade20k(tmp_path / "a.zip")


def test_validation_alone_is_enough_and_said(tmp_path):
    write_pair(tmp_path, "val", 1, (150,))
    done = read_ade20k(tmp_path)
    assert list(done.manifests) == ["val"]
    assert any(note.startswith("train: isn't there") for note in done.notes)
