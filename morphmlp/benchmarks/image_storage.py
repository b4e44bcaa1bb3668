"""What it costs to read one image where it lies: bytes and CPU time, for each form in which data sets are held.

The same JPEGs lie in a tar and in Parquet files with and without compression, and are read in random order by the
places of their manifests; the other way is Arrow's, a row group for each image.
"""

import io
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from morphmlp.data.datasets.imagenet.prepare import ImageSources, read_images
from morphmlp.data.datasets.imagenet.tars import add_file
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage, image_bytes
from morphmlp.files import atomic_file

NUM_IMAGES = 2000
_SIZE = (470, 390)
"""Columns and rows: ImageNet's mean."""
_ROW_GROUP = 100
"""Images of a row group, as the hub's library writes them."""
_READ = 500
_READ_BY_ARROW = 50
_FORMS = {"tar": "train.tar", "Parquet, none": "none.parquet", "Parquet, Snappy": "snappy.parquet"}


@dataclass(frozen=True, kw_only=True)
class ReadingCost:
    """One image of a form in random order; medians over the rounds."""

    form: str
    bytes_ratio: float
    """Bytes that are read per byte of the image."""
    cpu_us: float
    """CPU time of the reading process, microseconds."""
    find_cpu_us: float | None
    """CPU time of finding an image when the manifest is made, microseconds; None where there's nothing to find."""


def measure_image_storage(folder: Path, *, rounds: int, on_round: Callable[[int], None]) -> list[ReadingCost]:
    """Write the forms where they aren't there, and read from each in interleaved rounds; last, Pillow's decode."""
    _write_forms(folder)
    rows: dict[str, list[Mapping[str, object]]] = {}
    find_us: dict[str, float] = {}
    for form, name in _FORMS.items():
        start = time.process_time()
        table = read_images(ImageSources(splits={"train": folder / name})).manifests["train"].table
        find_us[form] = (time.process_time() - start) / NUM_IMAGES * 1e6
        rows[form] = sorted(table.to_pylist(), key=lambda row: str(row["member"]))
    order: list[int] = np.random.default_rng(1).permutation(NUM_IMAGES)[:_READ].tolist()
    times: dict[str, list[float]] = defaultdict(list)
    ratios: dict[str, float] = {}
    for number in range(rounds):
        for form in _FORMS:
            us, ratios[form] = _by_place([rows[form][place] for place in order])
            times[form].append(us)
        by_arrow, decode = "Parquet, Snappy, by row groups", "Pillow's decode, to compare"
        us, ratios[by_arrow] = _by_row_group(folder / _FORMS["Parquet, Snappy"], order[:_READ_BY_ARROW])
        times[by_arrow].append(us)
        times[decode].append(_decode([rows["tar"][place] for place in order[:_READ_BY_ARROW]]))
        ratios[decode] = 0.0
        on_round(number + 1)
    return [
        ReadingCost(form=form, bytes_ratio=ratios[form], cpu_us=median(found), find_cpu_us=find_us.get(form))
        for form, found in times.items()
    ]


def storage_table(costs: Sequence[ReadingCost]) -> str:
    """The costs as a table in words."""
    lines = [f"{'one image in random order':<34}{'bytes read/byte':>16}{'CPU us':>9}{'to find, us':>13}"]
    for cost in costs:
        find = "" if cost.find_cpu_us is None else f"{cost.find_cpu_us:,.0f}"
        lines.append(f"{cost.form:<34}{cost.bytes_ratio:>16.2f}{cost.cpu_us:>9,.0f}{find:>13}")
    return "\n".join(lines)


def _by_place(rows: Sequence[Mapping[str, object]]) -> tuple[float, float]:
    read = wanted = 0
    start = time.process_time()
    for row in rows:
        image = StoredImage.of(row)
        assert image is not None
        wanted += len(image_bytes(str(row["path"]), image))
        read += image.blocks_length or image.length or 0
    return (time.process_time() - start) / len(rows) * 1e6, read / wanted


def _by_row_group(path: Path, order: Sequence[int]) -> tuple[float, float]:
    read = wanted = 0
    with pq.ParquetFile(path) as file:
        start = time.process_time()
        for place in order:
            group, row = divmod(place, _ROW_GROUP)
            wanted += len(file.read_row_group(group, columns=["image"])["image"][row]["bytes"].as_py())
            read += file.metadata.row_group(group).column(0).total_compressed_size
        return (time.process_time() - start) / len(order) * 1e6, read / wanted


def _decode(rows: Sequence[Mapping[str, object]]) -> float:
    contents = [image_bytes(str(row["path"]), StoredImage.of(row)) for row in rows]
    start = time.process_time()
    for content in contents:
        Image.open(io.BytesIO(content)).convert("RGB")
    return (time.process_time() - start) / len(rows) * 1e6


def _write_forms(folder: Path) -> None:
    if all((folder / name).exists() for name in _FORMS.values()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    images = [_jpeg(np.random.default_rng(number)) for number in range(NUM_IMAGES)]
    names = [f"{number:05d}.jpg" for number in range(NUM_IMAGES)]
    with atomic_file(folder / _FORMS["tar"]) as unfinished, tarfile.open(unfinished, "w") as archive:
        for name, data in zip(names, images, strict=True):
            add_file(archive, name, data)
            add_file(archive, f"{name[:5]}.cls", b"0")
    cells = [{"bytes": data, "path": name} for name, data in zip(names, images, strict=True)]
    table = pa.table({"image": pa.array(cells), "label": pa.array([0] * NUM_IMAGES)})
    for compression in ("none", "snappy"):
        with atomic_file(folder / f"{compression}.parquet") as unfinished:
            pq.write_table(table, unfinished, row_group_size=_ROW_GROUP, compression=compression)


def _jpeg(rng: np.random.Generator) -> bytes:
    """A JPEG of ImageNet's mean size and weight, 110 to 120 kB: soft colours with grain."""
    soft = Image.fromarray(rng.integers(0, 256, (60, 75, 3), dtype=np.uint8)).resize(_SIZE, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 14, (_SIZE[1], _SIZE[0], 1))
    target = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)).save(target, "JPEG", quality=92)
    return target.getvalue()
