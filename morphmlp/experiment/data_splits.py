"""The videos of an experiment's splits, read and checked before anything starts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from morphmlp.config import ExperimentConfig
from morphmlp.data.clips.sampling import TARGET_FPS
from morphmlp.data.decoding.backends import decoder_fault
from morphmlp.data.manifest import HOW_TO_PREPARE, Manifest, read_class_names, read_manifest
from morphmlp.data.stream.decode_task import REQUEST_COLUMNS
from morphmlp.errors import ConfigError, ManifestError
from morphmlp.record import RecordedDataset, Tags

SPLIT_TAGS = {"train": Tags.DATA_TRAIN, "val": Tags.DATA_VAL, "test": Tags.DATA_TEST}
"""Where the record has their fingerprints."""
_RECORDED_TYPES = {
    "string": "string",
    "int32": "integer",
    "int64": "long",
    "double": "double",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "datetime",
}
"""MLflow's names of Arrow's types."""
_FEW, _NAMED = 5, 3
_MANY_SHORT = 0.01
"""Share of the training videos that may be shorter than a clip without a word: published sets have some."""


@dataclass(frozen=True, kw_only=True)
class DataSplits:
    """The available videos of an experiment, read and checked before anything starts."""

    train: Manifest
    val: Manifest
    test: Manifest
    notes: tuple[str, ...] = ()
    """What to know before relying on them, a line each."""

    def by_split(self) -> dict[str, Manifest]:
        """The manifests by the split's name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """What distinguishes each split's videos from others, see `Manifest.fingerprint`."""
        return {split: manifest.fingerprint() for split, manifest in self.by_split().items()}

    def tags(self) -> dict[str, str]:
        """Their fingerprints, as they stand in the record."""
        prepared = {Tags.PREPARED + split: manifest.prepared for split, manifest in self.by_split().items()}
        return {
            **{tag: self.fingerprints[split] for split, tag in SPLIT_TAGS.items()},
            **{tag: made for tag, made in prepared.items() if made is not None},
        }


def recorded_datasets(config: ExperimentConfig, data: DataSplits) -> list[RecordedDataset]:
    """The splits as the record names them."""
    return [
        recorded_dataset(config, split, manifest, digest=data.fingerprints[split])
        for split, manifest in data.by_split().items()
    ]


def recorded_dataset(config: ExperimentConfig, split: str, manifest: Manifest, *, digest: str) -> RecordedDataset:
    """One split as the record names it; `digest` is its fingerprint."""
    path = asdict(config.data)[split]
    return RecordedDataset(
        name=f"{config.dataset}-{split}",
        digest=digest,
        context=split,
        source=path,
        columns={field.name: _RECORDED_TYPES[str(field.type)] for field in pq.read_schema(path)},
        profile={f"num_{manifest.items}": len(manifest), "num_classes": len(manifest.class_names)},
    )


def read_splits(config: ExperimentConfig) -> DataSplits:
    """Read an experiment's manifests, and check their labels against the head and that they can be decoded here.

    Raises:
        ConfigError: A named decoder can't be used on this machine.
        ManifestError: Every manifest that is missing, empty, has labels that the model doesn't, or other classes than
            the training videos.
    """
    _require_decoders(config)
    paths = {"train": config.data.train, "val": config.data.val, "test": config.data.test}
    _require_files(paths, config)
    manifests: dict[str, Manifest] = {}
    faults = []
    for split, path in paths.items():
        try:
            manifest = read_manifest(path, only=(*REQUEST_COLUMNS, "fps")).available()
        except ManifestError as error:
            faults.append(f"data.{split}: {error}")
            continue
        manifests[split] = manifest
        faults.extend(_split_faults(manifest, f"data.{split}: {path}", config))
    faults.extend(_other_classes(manifests, paths))
    if faults:
        raise ManifestError("\n".join(faults))
    notes = list(_training_notes(manifests["train"], config))
    if len({manifest.prepared for manifest in manifests.values()}) > 1:
        made = "; ".join(f"{split}: {manifest.prepared or 'originals'}" for split, manifest in manifests.items())
        notes.insert(0, f"splits differ in how their videos were prepared: {made}")
    # The rate serves the notes alone: it need not travel with ten million rows.
    kept = {split: replace(each, table=each.table.drop_columns("fps")) for split, each in manifests.items()}
    return DataSplits(**kept, notes=tuple(notes))


def read_test_split(config: ExperimentConfig) -> Manifest:
    """Read the test videos alone, and check their labels against the head and that they can be decoded here.

    Where the training manifest is there too, its classes must be theirs.

    Raises:
        ConfigError: A named decoder can't be used on this machine.
        ManifestError: The manifest is missing, empty, or has other labels than the model.
    """
    _require_decoders(config)
    path = config.data.test
    _require_files({"test": path}, config)
    try:
        manifest = read_manifest(path, only=REQUEST_COLUMNS).available()
    except ManifestError as error:
        raise ManifestError("\n".join(f"data.test: {line}" for line in str(error).splitlines())) from None
    faults = _split_faults(manifest, f"data.test: {path}", config)
    if Path(config.data.train).exists() and config.data.train != path:
        trained = replace(manifest, class_names=read_class_names(config.data.train))
        faults += _other_classes({"train": trained, "test": manifest}, {"train": config.data.train, "test": path})
    if faults:
        raise ManifestError("\n".join(faults))
    return manifest


def _split_faults(manifest: Manifest, where: str, config: ExperimentConfig) -> list[str]:
    """Why an experiment can't use a split's videos."""
    if manifest.task != config.task:
        return [f"{where} has labels for task {manifest.task}, the experiment's is {config.task}"]
    fault = _label_fault(manifest, config.model.num_classes)
    return [] if fault is None else [f"{where} {fault}"]


def _label_fault(manifest: Manifest, num_classes: int) -> str | None:
    """Why a network with so many outputs can't learn, or be scored on, the labels of a manifest."""
    named = len(manifest.class_names)
    if manifest.task == "segmentation":
        if "map_path" not in manifest.table.column_names or (without := manifest.table["map_path"].null_count):
            missing = f"{without} of its images" if "map_path" in manifest.table.column_names else "its images"
            return f"has no label maps for {missing}; prepare it again"
        if named > num_classes:
            return f"names {named} classes, model.num_classes is {num_classes}; set it to {named}"
        return None
    greatest = pc.max(manifest.table["label"]).as_py()
    if greatest < num_classes:
        return None
    return f"has label {greatest}, model.num_classes is {num_classes}; set it to {named}"


def _training_notes(train: Manifest, config: ExperimentConfig) -> Iterator[str]:
    """What is uncommon about the training videos."""
    names, outputs = train.class_names, config.model.num_classes
    if len(names) < outputs:
        yield f"model.num_classes is {outputs}, the manifests name {len(names)} classes: the other outputs stand idle"
    if len(train) < config.train.global_batch_size:
        yield (
            f"train.global_batch_size is {config.train.global_batch_size}, more than the {len(train)} training "
            f"{train.items}: each step takes all of them"
        )
    if train.task == "segmentation":  # a row has many classes, and no length
        return
    counts = np.bincount(train.table["label"].to_numpy(), minlength=len(names))
    if few := [name for name, count in zip(names, counts, strict=False) if count < _FEW]:
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        yield f"fewer than {_FEW} training {train.items}: {', '.join(map(repr, few[:_NAMED]))}{more}"
    clip, rows = config.clip, train.table
    frames = rows["num_frames"]
    if clip.frame_stride is None:
        needed: pa.ChunkedArray | float = clip.num_frames
    elif clip.sampling == "dense":
        needed = pc.multiply(rows["fps"], clip.num_frames * clip.frame_stride / TARGET_FPS)
    else:
        needed = clip.num_frames * clip.frame_stride
    short = pc.sum(pc.less(frames, needed)).as_py() or 0
    if short > _MANY_SHORT * len(train):
        length = f"{clip.num_frames}x{clip.frame_stride}" if clip.frame_stride else f"{clip.num_frames} frames"
        yield f"{short} of {len(train)} training videos are shorter than a clip of {length} and repeat frames"


def _other_classes(manifests: Mapping[str, Manifest], paths: Mapping[str, str]) -> list[str]:
    """A fault for each manifest in which a label means another class than in training."""
    if "train" not in manifests:
        return []
    trained = manifests["train"].class_names
    faults = {}
    for split, manifest in manifests.items():
        names = manifest.class_names
        if paths[split] in faults or (label := _first_difference(trained, names)) is None:
            continue
        faults[paths[split]] = (
            f"data.{split}: label {label} is {names[label]!r} in {paths[split]} ({len(names)} classes), and "
            f"{trained[label]!r} in data.train {paths['train']} ({len(trained)} classes); make it again with "
            f"--classes {paths['train']}"
        )
    return list(faults.values())


def _first_difference(these: Sequence[str], those: Sequence[str]) -> int | None:
    """The first label whose names differ; None where each label has one meaning.

    Numbers for names, as manifests have them that were made of class ids alone, don't say what a label means.
    """
    if any(names == tuple(map(str, range(len(names)))) for names in (these, those)):
        return None
    pairs = zip(map(_spelt_alike, these), map(_spelt_alike, those), strict=False)
    return next((label for label, (this, that) in enumerate(pairs) if this != that), None)


def _spelt_alike(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _require_decoders(config: ExperimentConfig) -> None:
    named = {"ingest.decoder": config.ingest.decoder, "ingest.retry_with": config.ingest.retry_with}
    faults = {field: decoder_fault(name) for field, name in named.items() if name is not None}
    if found := [f"{field}: {fault}" for field, fault in faults.items() if fault is not None]:
        raise ConfigError(found)


def _require_files(paths: Mapping[str, str], config: ExperimentConfig) -> None:
    missing = {split: path for split, path in paths.items() if not Path(path).exists()}
    if not missing:
        return
    fields = ", ".join(f"data.{split} {path}" for split, path in missing.items())
    raise ManifestError(f"no such manifest: {fields}; {HOW_TO_PREPARE}")
