"""Own images and label maps: paired by name, divided or as folders say, their numbers held against the class list."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from morphmlp.data.datasets.masks import MaskFolders, read_masks
from morphmlp.data.datasets.splits import SplitRule
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.errors import ManifestError

RULE = SplitRule.parse("60/20/20")
LABELME = Path("/usr/share/doc/labelme-examples/examples")


def write_pair(root, name, values=(0, 1, 2, 255), *, image=".jpg", mask=".png", exif=None, size=(12, 8)):
    for folder in ("images", "masks"):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8)).save(root / "images" / f"{name}{image}", **({} if exif is None else {"exif": exif}))
    labels = np.zeros(size[::-1], dtype=np.uint8)
    labels.reshape(-1)[: len(values)] = values
    target = io.BytesIO()
    Image.fromarray(labels).save(target, "PNG")
    (root / "masks" / f"{name}{mask}").write_bytes(target.getvalue())


def folders(root, names=("background", "cat", "dog"), **changed):
    (root / "classes.txt").write_text("\n".join(names))
    return MaskFolders(images=root / "images", maps=root / "masks", classes=root / "classes.txt", **changed)


def ids(done):
    return {split: manifest.table["video_id"].to_pylist() for split, manifest in done.manifests.items()}


def message_of(root, *, names=("background", "cat", "dog"), leaves_out=False, **changed):
    with pytest.raises(ManifestError) as raised:
        read_masks(folders(root, names, **changed), RULE, kept={}, leaves_out=leaves_out)
    return str(raised.value)


def test_pairs_are_divided_alike_every_time_and_those_with_a_split_keep_it(tmp_path):
    for number in range(10):
        write_pair(tmp_path, f"deep/{number}")
    first = read_masks(folders(tmp_path), RULE, kept={})
    assert {split: len(found) for split, found in ids(first).items()} == {"train": 6, "val": 2, "test": 2}
    assert ids(read_masks(folders(tmp_path), RULE, kept={})) == ids(first)
    for number in range(10, 20):
        write_pair(tmp_path, f"deep/{number}")
    kept = {name: split for split, names in ids(first).items() for name in names}
    again = ids(read_masks(folders(tmp_path), RULE, kept=kept))
    assert all(set(ids(first)[split]) < set(again[split]) for split in again)
    other = ids(read_masks(folders(tmp_path), SplitRule.parse("60/20/20", seed=1), kept={}))
    assert other != again


def test_frames_of_one_video_stay_in_one_split(tmp_path):
    for video in "abcdef":
        for frame in range(3):
            write_pair(tmp_path, f"{video}_{frame}")
    found = ids(read_masks(folders(tmp_path, group_pattern="(.+)_[0-9]+"), RULE, kept={}))
    videos = {split: {name[0] for name in names} for split, names in found.items()}
    assert sum(map(len, videos.values())) == 6


def test_folders_say_the_splits_and_suffixes_what_names_do_not_share(tmp_path):
    for split in ("train", "val"):
        write_pair(tmp_path, f"{split}/town/a", image="_leftImg8bit.png", mask="_gtFine_labelTrainIds.png")
        write_pair(tmp_path, f"{split}/town/a", image="_leftImg8bit.png", mask="_gtFine_color.png")
    done = read_masks(folders(tmp_path, image_suffix="_leftImg8bit", map_suffix="_gtFine_labelTrainIds"), RULE, kept={})
    assert ids(done) == {"train": ["train/town/a"], "val": ["val/town/a"]}
    assert "images and masks: passed over 2 .png" in done.notes


@pytest.mark.parametrize("zero_is_ignored", [False, True])
def test_zero_is_a_class_or_none_as_it_is_said(zero_is_ignored, tmp_path):
    for number in range(3):
        write_pair(tmp_path, str(number), (0, 1, 2, 3, 255) if zero_is_ignored else (0, 1, 2, 255))
    done = read_masks(folders(tmp_path, zero_is_ignored=zero_is_ignored), RULE, kept={})
    row = done.manifests["train"].table.to_pylist()[0]
    pixels = AnyVideo(None).open(row["map_path"], num_frames=None, image=StoredImage.of_map(row)).read([0]).frames
    expected = [255, 0, 1, 2, 255] if zero_is_ignored else [0, 1, 2, 255, 0]
    assert pixels[0, 0, :5, 0].tolist() == expected
    assert done.manifests["train"].class_names == ("background", "cat", "dog")


def test_photos_are_upright_and_a_map_of_the_lying_picture_is_named(tmp_path):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    for number in range(3):
        write_pair(tmp_path, str(number), exif=tags, size=(8, 12))
    done = read_masks(folders(tmp_path), RULE, kept={})
    row = done.manifests["train"].table.to_pylist()[0]
    assert AnyVideo(None).open(row["path"], num_frames=None, image=StoredImage.of(row)).info.height == 12
    write_pair(tmp_path, "lying", exif=tags)
    assert "lying (image 8x12, map 12x8 pixels, EXIF orientation 6); images are shown as their EXIF" in message_of(
        tmp_path
    )


def test_numbers_outside_the_class_list_say_what_may_be_meant(tmp_path):
    for number in range(3):
        write_pair(tmp_path, str(number), (0, 1, 2, 3))
    message = message_of(tmp_path)
    assert "3 of 3 label maps with labels outside the classes: 0 (3), 1 (3), 2 (3); the 3 classes of " in message
    assert "are 0 to 2, and 255 is ignored; where 0 is no class, say --zero-is-ignored" in message
    message = message_of(tmp_path, names=("cat", "dog"), zero_is_ignored=True)
    assert "are 1 to 2, and 0 and 255 are ignored" in message
    assert "not one pair of train can be used" in message_of(tmp_path, names=("a", "b"), leaves_out=True)


def test_a_foreground_drawn_in_white_would_be_ignored_and_is_refused(tmp_path):
    for number in range(3):
        write_pair(tmp_path, str(number), (255, 255))
    assert "hold 0 and 255 alone, and 255 is ignored; a foreground that is drawn in white" in message_of(tmp_path)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"images": [], "masks": ["a.png"]}, "--images: .*images: holds no images"),
        ({"images": ["a.jpg"], "masks": ["a.npy"]}, "--masks: .*masks: holds no label maps"),
        ({"masks": ["a.png"]}, "--images: .*images: no such folder"),
        (
            {"images": ["a.jpg", "a.png"], "masks": ["a.png"]},
            r"holds .*a\.jpg and .*a\.png, of which one alone can be a",
        ),
        (
            {"images": ["train/a.jpg", "val/b.jpg"], "masks": ["a.png"]},
            "holds the splits train, val, .* none; both must",
        ),
        ({"images": ["train/a.jpg"], "masks": ["train/a.png"]}, "holds the splits train, .*train and val among them"),
    ],
)
def test_what_is_no_set_of_pairs_is_named(made, message, tmp_path):
    for folder, names in made.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).parent.mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(b"")
    with pytest.raises(ManifestError, match=message):
        read_masks(folders(tmp_path), RULE, kept={})


@pytest.mark.skipif(not LABELME.is_dir(), reason=f"needs {LABELME}: apt install labelme-examples")
@pytest.mark.parametrize("example", ["semantic_segmentation", "instance_segmentation"])
def test_masks_that_labelme_wrote_in_the_form_of_voc_are_what_its_arrays_say(example):
    root = LABELME / example / "data_dataset_voc"
    source = MaskFolders(
        images=root / "JPEGImages", maps=root / "SegmentationClassPNG", classes=root / "class_names.txt"
    )
    done = read_masks(source, SplitRule.parse("34/33/33"), kept={})
    assert done.manifests["train"].class_names[:3] == ("_background_", "aeroplane", "bicycle")
    rows = [row for manifest in done.manifests.values() for row in manifest.table.to_pylist()]
    assert sorted(row["video_id"] for row in rows) == ["2011_000003", "2011_000006", "2011_000025"]
    for row in rows:
        label_map = AnyVideo(None).open(row["map_path"], num_frames=None, image=StoredImage.of_map(row))
        truth = np.load(root / "SegmentationClass" / f"{row['video_id']}.npy")
        # labelme writes pixels to be ignored as -1
        assert np.array_equal(label_map.read([0]).frames[0, ..., 0], np.where(truth < 0, 255, truth))
