"""`pipelines/export_label_maps.py` as a user runs it, and the pictures that it writes, read by OpenCV and Pillow."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from morphmlp.data.columns import PREDICTIONS
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.errors import ConfigError
from morphmlp.reporting.label_maps import export_label_maps, predictions_of
from morphmlp.reporting.segmentation import palette
from morphmlp.tasks.segmentation.confusion import outcome_of, predictions_table

SCRIPT = Path(__file__).parents[2] / "pipelines" / "export_label_maps.py"
PREDICTIONS_FILE = "runs/tested/predictions.parquet"
NAMES = ("ADE_val_00000001", "ADE_val_00000002", "street/scene 7", "é.b")


def predictions(names=NAMES, k=255):
    """A table of these images, and the map of each."""
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, k, (20 + row, 30), dtype=np.uint8) for row in range(len(names))]
    manifest = manifest_from_rows(
        video_ids=names,
        paths=["x.jpg"] * len(names),
        labels=[0] * len(names),
        splits=["test"] * len(names),
        sizes_bytes=[1] * len(names),
        class_names=["a"],
    )
    return predictions_table(
        manifest, {row: outcome_of(found, None, num_classes=k) for row, found in enumerate(maps)}
    ), maps


@pytest.fixture
def table(tmp_path):
    (tmp_path / "runs" / "tested").mkdir(parents=True)
    (tmp_path / "runs" / "tested" / "experiment.yaml").touch()
    pq.write_table(predictions()[0], tmp_path / "runs" / "tested" / "predictions.parquet")
    return tmp_path / "runs" / "tested" / "predictions.parquet"


def export(folder, *arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_a_run_is_exported_by_its_name(table, tmp_path):
    done = export(tmp_path, "tested", "--output", "maps")
    assert (done.returncode, done.stdout) == (0, f"maps: 4 label maps of {PREDICTIONS_FILE}, class + 1 in 8 bits\n")
    written = sorted(path.relative_to(tmp_path / "maps").as_posix() for path in (tmp_path / "maps").rglob("*.*"))
    assert written == sorted(f"{name}.png" for name in NAMES)


@pytest.mark.parametrize("source", ["tested", "runs/tested", PREDICTIONS_FILE])
def test_a_run_is_known_by_its_name_its_folder_or_its_file(table, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    assert predictions_of(source, Path("runs")) == Path(PREDICTIONS_FILE)


@pytest.mark.parametrize(("form", "more", "mode"), [("submission", 1, "L"), ("classes", 0, "L"), ("palette", 0, "P")])
def test_other_programs_read_the_maps_back(table, tmp_path, form, more, mode):
    export_label_maps(table, tmp_path / "maps", form=form)
    for name, found in zip(NAMES, predictions()[1], strict=True):
        path = tmp_path / "maps" / f"{name}.png"
        with Image.open(path) as picture:
            assert picture.mode == mode
            assert np.array_equal(np.asarray(picture), found + more)
        if mode == "P":
            shown = cv2.imread(str(path))[..., ::-1]
            assert np.array_equal(shown, palette(255)[found])
        else:
            assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), found + more)


@pytest.mark.parametrize(("form", "zero_is_ignored"), [("submission", True), ("classes", False), ("palette", False)])
def test_a_submission_read_as_a_label_map_of_ade20k_has_the_classes_again(table, tmp_path, form, zero_is_ignored):
    """Up to class 253: the map of a data set whose 0 is ignored has no more."""
    pq.write_table(predictions(k=150)[0], table)
    export_label_maps(table, tmp_path / "maps", form=form)
    row = {"map_path": str(tmp_path / "maps" / f"{NAMES[0]}.png"), "map_zero_is_ignored": zero_is_ignored}
    reader = AnyVideo(decoder_by_name("pyav")).open(row["map_path"], num_frames=None, image=StoredImage.of_map(row))
    assert np.array_equal(reader.read([0]).frames[0, ..., 0], predictions(k=150)[1][0])


def test_what_is_there_and_the_same_stays_and_the_rest_is_written(table, tmp_path):
    export_label_maps(table, tmp_path / "maps", form="classes")
    kept, lost = (tmp_path / "maps" / f"{name}.png" for name in NAMES[:2])
    os.utime(kept, (1, 1))
    lost.unlink()
    assert export_label_maps(table, tmp_path / "maps", form="classes") == 4
    assert kept.stat().st_mtime == 1
    assert lost.exists()


def test_nothing_is_written_where_another_file_would_be_replaced(table, tmp_path):
    (tmp_path / "maps").mkdir()
    other = tmp_path / "maps" / f"{NAMES[1]}.png"
    other.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=rf"{NAMES[1]}.png: is there and isn't what would be written; name another"):
        export_label_maps(table, tmp_path / "maps", form="submission")
    assert [path.read_bytes() for path in (tmp_path / "maps").iterdir()] == [b"mine"]


def untested(table):
    table.unlink()
    return "the run has no predictions yet; they come with its test"


def of_classification(table):
    pq.write_table(pa.Table.from_pylist([], schema=PREDICTIONS), table)
    return "holds no label maps; only runs with task: segmentation have them"


def not_parquet(table):
    table.write_bytes(b"nothing")
    return "can't be read as Parquet"


def leading_out(table):
    pq.write_table(predictions(["../escaped"])[0], table)
    return "image ../escaped: its id leads out of a folder"


def absolute(table):
    pq.write_table(predictions(["/etc/map"])[0], table)
    return "image /etc/map: its id leads out of a folder"


@pytest.mark.parametrize("fault", [untested, of_classification, not_parquet, leading_out, absolute])
def test_a_fault_is_one_line_and_writes_nothing(table, tmp_path, fault):
    message = fault(table)
    with pytest.raises(ConfigError) as raised:
        export_label_maps(predictions_of("tested", tmp_path / "runs"), tmp_path / "maps", form="submission")
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.png"))


def test_a_run_that_isnt_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="gone: neither a file of predictions nor a run's folder, nor a run under"):
        predictions_of("gone", tmp_path)


def test_a_folder_that_cant_be_made_is_named(table, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "street").touch()  # a file where a folder must be
    with pytest.raises(ConfigError, match=r"street/scene 7.png: can't be written"):
        export_label_maps(table, tmp_path / "maps", form="classes")
