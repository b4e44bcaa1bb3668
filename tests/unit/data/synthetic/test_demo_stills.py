import numpy as np
import pytest
from PIL import Image

from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.demo_stills import CLASS_NAMES, write_demo_stills
from morphmlp.data.synthetic.demo_task import HEIGHT, PAIRS, WIDTH
from morphmlp.errors import ManifestError


def seen(path):
    """Area of what isn't background in an image, pixels, and how far its middle is off to the side and down."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L")).astype(float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    rows, columns = np.nonzero(np.abs(pixels - np.median(border)) > 45)
    if len(rows) < 10:
        return len(rows), 0.0, 0.0
    return len(rows), abs(columns.mean() + 0.5 - WIDTH / 2), abs(rows.mean() + 0.5 - HEIGHT / 2)


def test_a_still_shows_what_its_class_says(tmp_path):
    write_demo_stills(tmp_path / "stills", train=300, val=5)
    rows = read_manifest(tmp_path / "stills" / "train.parquet").table.to_pylist()
    found = {name: np.array([seen(r["path"]) for r in rows if r["label"] == k]) for k, name in enumerate(CLASS_NAMES)}
    assert {name: len(each) for name, each in found.items()} == dict.fromkeys(CLASS_NAMES, 60)
    area, aside, down = {}, {}, {}
    for name, each in found.items():
        area[name], aside[name], down[name] = np.median(each, axis=0)
    assert area["blink"] < 10
    assert area["pulse"] > 2 * area["at rest"] > 80
    assert min(aside["wiggle across"], down["wiggle down"]) > 3.5
    assert max(aside["at rest"], aside["pulse"], aside["wiggle down"]) < 2
    assert max(down["at rest"], down["pulse"], down["wiggle across"]) < 2


def test_classes_are_the_events_of_the_demo_and_rest():
    assert set(CLASS_NAMES) == {"at rest", *(event for pair in PAIRS for event in pair)}


def test_the_same_numbers_give_the_same_images_and_others_are_refused(tmp_path):
    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")}

    write_demo_stills(tmp_path / "a", train=10, val=5)
    write_demo_stills(tmp_path / "b", train=10, val=5, threads=1)
    write_demo_stills(tmp_path / "c", train=10, val=5, seed=1)
    assert content(tmp_path / "a") == content(tmp_path / "b") != content(tmp_path / "c")
    with pytest.raises(ManifestError, match="holds other videos"):
        write_demo_stills(tmp_path / "a", train=11, val=5)
    with pytest.raises(ManifestError, match="can't be less than none"):
        write_demo_stills(tmp_path / "d", train=-1, val=5)
