"""From a user's own files to manifests and a first experiment: classes, splits, checks, what the videos are like."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from morphmlp.config.operation import IngestConfig
from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.data.datasets.own_folder import Items, OwnVideo, OwnVideos
from morphmlp.data.datasets.splits import SplitRule, assign_splits, groups_by_pattern
from morphmlp.data.datasets.video_folder import sizes_bytes
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.data.manifest import SPLITS, Manifest, manifest_from_rows, read_manifest, write_manifest, writing
from morphmlp.errors import DecodeError, ManifestError
from morphmlp.files import atomic_write
from morphmlp.models.presets import Preset
from morphmlp.preparation.duplicates import same_content
from morphmlp.preparation.starter import DataFacts, Starter, starter_experiment
from morphmlp.progress import Progress

MAX_NAMED = 5
"""Files and classes that one message names; the rest is counted."""
_SETTINGS = "prepared.json"
"""What a folder was prepared from, and how it was divided."""
CLASSES = "classes.txt"
EXPERIMENT = "experiment.yaml"


@dataclass(frozen=True, kw_only=True)
class OwnDataJob:
    """What is to be prepared."""

    output: Path
    dataset: str
    """Name for record and tables."""
    source: Mapping[str, str]
    """What the files come from, in words that JSON knows: another source needs another output."""
    rule: SplitRule
    group_column: str | None = None
    """Column that the groups of the videos come from."""
    group_pattern: str | None = None
    classes: Path | None = None
    """File with the names in label order; by default that of an earlier preparation, then the alphabetical order."""
    starter: Starter = "scratch"
    weights: str | None = None
    stated: Preset | None = None
    """The network of these weights."""
    look_at: int = 200
    """Videos to open for their lengths, rates and sizes."""


@dataclass(frozen=True, kw_only=True)
class PreparedOwnData:
    """What was written."""

    manifests: Mapping[str, Manifest]
    files: Sequence[Path]
    notes: Sequence[str]


def prepare_own_data(found: OwnVideos, job: OwnDataJob, *, progress: Progress) -> PreparedOwnData:
    """Divide videos into splits, write manifests, the class list and a first experiment.

    Raises:
        ManifestError: What can't be used, each fault in a line; nothing is written then.
        ConfigError: The pattern of groups doesn't fit.
    """
    before = _Before.read(job)
    names = _class_names(found.videos, before.class_names, job)
    copies = same_content([video.path for video in found.videos], progress)
    sizes = sizes_bytes([video.path for video in found.videos])
    kept = [video.split or before.split_of.get(video.video_id) for video in found.videos]
    groups = _groups(found.videos, copies, job.group_pattern)
    _refuse_contradictions(found.videos, copies, groups, kept)
    labels = [video.label for video in found.videos]
    splits = kept if None not in kept else assign_splits(job.rule, groups=groups, classes=labels, kept=kept)
    divided = [replace(video, split=split) for video, split in zip(found.videos, splits, strict=True)]
    by_rule = {video.label for video in found.videos if video.split is None}
    notes = [*found.notes, *_notes_on_copies(found.items, copies), *_notes_on_splits(divided, names, by_rule)]
    empty = sum(size == 0 for size in sizes)
    if empty:
        notes.append(f"empty files: {empty}")
    infos, failed = _look_at([video.path for video in divided], job.look_at, progress, found.items)
    if failed:
        notes.append(
            f"{len(failed)} of {len(infos) + len(failed)} {found.items} looked at can't be used, as {failed[0]}"
        )
    if empty or failed:
        notes.append(
            "such files stay in the manifests; a run leaves them out, and stops where they are more than "
            f"{IngestConfig().max_quarantined_share:.0%} of a split (ingest.max_quarantined_share). "
            "`prepare.py verify` lists all with reasons: remove or repair them, then prepare again"
        )
    if not infos:
        raise ManifestError(f"not one of {len(failed)} {found.items} could be opened, as {failed[0]}")
    manifests = {
        split: _manifest(
            [(video, size) for video, size in zip(divided, sizes, strict=True) if video.split == split],
            names,
            found.items,
        )
        for split in SPLITS
        if split in {video.split for video in divided}
    }
    if gone := [split for split in SPLITS if split not in manifests and (job.output / f"{split}.parquet").exists()]:
        raise ManifestError(f"{job.output}: holds {gone[0]}.parquet, which would be empty now; choose another --output")
    files, more_notes = _write(manifests, infos, found.items, job)
    return PreparedOwnData(manifests=manifests, files=files, notes=[*notes, *more_notes])


@dataclass(frozen=True, kw_only=True)
class _Before:
    """What an earlier preparation left in the output: it stays as it is, whatever is added."""

    class_names: Sequence[str] = ()
    split_of: Mapping[str, str]

    @classmethod
    def read(cls, job: OwnDataJob) -> "_Before":
        path = job.output / _SETTINGS
        if not path.exists():
            if there := [split for split in SPLITS if (job.output / f"{split}.parquet").exists()]:
                raise ManifestError(
                    f"{job.output}: holds {there[0]}.parquet of something else; choose another --output"
                )
            return cls(split_of={})
        try:
            said, asked = dict(json.loads(path.read_text(encoding="utf-8"))), _settings(job)
        except (TypeError, ValueError):
            raise ManifestError(f"{path}: is damaged; choose another --output, or remove {job.output}") from None
        if said != asked:
            differ = [name for name in asked if said.get(name) != asked[name]]
            what = ", ".join(f"{name} {said.get(name)}, asked for {asked[name]}" for name in differ)
            raise ManifestError(
                f"{job.output}: was prepared otherwise ({what}); choose another --output, or remove it to divide anew"
            )
        names: Sequence[str] = ()
        split_of: dict[str, str] = {}
        for split in SPLITS:  # none, where the command was stopped before it had written one
            if (path := job.output / f"{split}.parquet").exists():
                manifest = read_manifest(path, only=())
                split_of |= dict.fromkeys(manifest.table["video_id"].to_pylist(), split)
                names = manifest.class_names
        return cls(class_names=names, split_of=split_of)


def _settings(job: OwnDataJob) -> dict[str, object]:
    return {
        "source": dict(job.source),
        "split": "/".join(map(str, job.rule.shares)),
        "seed": job.rule.seed,
        "group_column": job.group_column,
        "group_pattern": job.group_pattern,
    }


def _class_names(videos: Sequence[OwnVideo], before: Sequence[str], job: OwnDataJob) -> tuple[str, ...]:
    """Names in label order: as given, or as before with new ones behind, or in alphabetical or numerical order."""
    found = {video.label for video in videos}
    spelt: dict[str, list[str]] = defaultdict(list)
    for name in sorted(found):
        spelt[" ".join(name.replace("_", " ").casefold().split())].append(name)
    faults = [
        f"classes {', '.join(map(repr, names))} differ only in capitals, spaces or underscores; give them one name"
        for names in spelt.values()
        if len(names) > 1
    ]
    given = read_class_list(job.classes) if job.classes is not None else before
    where = job.classes or job.output
    if gone := [name for name in given if name not in found]:
        way_out = "; choose another --output to leave it out" if job.classes is None else ""
        faults.append(f"{where}: {_named(gone)} {_have(gone)} no videos{way_out}")
    new = sorted(found - set(given), key=_by_number if all(name.isdecimal() for name in found) else str)
    if job.classes is not None and new:
        faults.append(f"{where}: doesn't have {_named(new)}")
    if len(found) == 1:
        faults.append(f"there is only one class, {next(iter(found))!r}; a network needs two at least to choose from")
    if faults:
        raise ManifestError("\n".join(faults))
    return (*given, *new)


def _by_number(name: str) -> tuple[int, str]:
    return int(name), name


def _groups(videos: Sequence[OwnVideo], copies: Sequence[Sequence[int]], pattern: str | None) -> list[str]:
    """What stays together of each video: its source, and whatever has the same content; by default itself."""
    if pattern is not None:
        names = groups_by_pattern([video.video_id.rpartition("/")[2] for video in videos], pattern)
    else:
        names = [video.group or f"\0{video.video_id}" for video in videos]
    joined = {name: name for name in names}

    def first(name: str) -> str:
        while joined[name] != name:
            name = joined[name]
        return name

    for places in copies:
        together = sorted({first(names[place]) for place in places})
        joined |= dict.fromkeys(together, together[0])
    return [first(name) for name in names]


def _refuse_contradictions(
    videos: Sequence[OwnVideo], copies: Sequence[Sequence[int]], groups: Sequence[str], kept: Sequence[str | None]
) -> None:
    """Raise for one file of two classes or splits, and for a source in two splits."""
    faults = []
    for places in copies:
        these = [videos[place] for place in places]
        splits = {kept[place] for place in places} - {None}
        if len({video.label for video in these}) > 1:
            faults.append(f"{_ids(these)} are the same file, of different classes; each video has one")
        elif len(splits) > 1:
            faults.append(f"{_ids(these)} are the same file, in {' and '.join(sorted(map(str, splits)))}; keep one")
    if not faults:
        members: dict[str, list[int]] = defaultdict(list)
        for place, group in enumerate(groups):
            members[group].append(place)
        for group, places in members.items():
            splits = {kept[place] for place in places} - {None}
            if len(splits) > 1:
                named = " and ".join(sorted(map(str, splits)))
                faults.append(f"group {group!r} is in {named}, as {_ids([videos[place] for place in places])}")
    if faults:
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise ManifestError("\n".join([*faults[:20], *more]))


def _notes_on_copies(items: Items, copies: Sequence[Sequence[int]]) -> list[str]:
    if not copies:
        return []
    count = sum(len(places) - 1 for places in copies)
    return [f"copies of other {items}, byte for byte: {count}; each is in the same split as the first"]


def _notes_on_splits(videos: Sequence[OwnVideo], names: Sequence[str], by_rule: Collection[str]) -> list[str]:
    """What is thin; raises where a split or a class is missing. `by_rule` are the classes that weren't divided already.

    Raises:
        ManifestError: No training or validation videos, a class without training videos, or one with fewer videos
            than there are splits.
    """
    counts = {split: Counter(video.label for video in videos if video.split == split) for split in SPLITS}
    if missing := [split for split in ("train", "val") if not counts[split]]:
        raise ManifestError(f"there are no {' and no '.join(missing)} videos; training and validation need some")
    used = [split for split in SPLITS if counts[split]]
    total = Counter(video.label for video in videos)
    faults = []
    if few := [name for name in names if name in by_rule and total[name] < len(used)]:
        faults.append(
            f"{_named(few)} {_have(few)} fewer than the {len(used)} videos that {len(used)} splits need; add some, "
            "remove the class, or divide by two: --split 80/20"
        )
    elif untrained := [name for name in names if not counts["train"][name]]:
        faults.append(f"{_named(untrained)} {_have(untrained)} no training videos")
    if faults:
        raise ManifestError("\n".join(faults))
    notes = [
        f"{split} has no videos of {_named(without)}"
        for split in used[1:]
        if (without := [name for name in names if not counts[split][name]])
    ]
    notes += [
        f"{split} has one video{' each' if len(single) > 1 else ''} of {_named(single)}: right or wrong, it moves the "
        f"score by {100 / counts[split].total():.1f} points"
        for split in used[1:]
        if (single := [name for name in names if counts[split][name] == 1])
    ]
    if thin := [name for name in names if counts["train"][name] < 5]:
        notes.append(f"{_named(thin)} {_have(thin)} fewer than 5 training videos; don't expect much of them")
    most, fewest = max(counts["train"].values()), min(counts["train"][name] for name in names)
    if most > 5 * fewest:
        notes.append(f"classes are uneven: {fewest} to {most} training videos each")
    return notes


def _look_at(paths: Sequence[str], count: int, progress: Progress, items: Items) -> tuple[list[VideoInfo], list[str]]:
    """What the files of a sample hold, and those that can't be opened with their reasons."""
    rule = SplitRule(shares=(1, 1))  # the sample is the same each time
    sample = sorted(paths, key=rule.order)[:count]
    infos, failed = [], []
    progress.phase("look at", total=len(sample), unit=items)
    with IsolatedVideos("pyav", Limits(timeout_s=60.0)) as opener:
        for done, path in enumerate(sample, 1):
            try:
                infos.append(opener.open(path, num_frames=None).info)
            except DecodeError as error:
                failed.append(f"{path}: {error}")
            progress.update(done)
    return infos, failed


def _manifest(videos: Sequence[tuple[OwnVideo, int | None]], names: Sequence[str], items: Items) -> Manifest:
    labels = {name: label for label, name in enumerate(names)}
    return manifest_from_rows(
        video_ids=[video.video_id for video, _ in videos],
        paths=[video.path for video, _ in videos],
        labels=[labels[video.label] for video, _ in videos],
        splits=[str(video.split) for video, _ in videos],
        sizes_bytes=[size for _, size in videos],
        class_names=names,
        items=items,
    )


def _write(
    manifests: Mapping[str, Manifest], infos: Sequence[VideoInfo], items: Items, job: OwnDataJob
) -> tuple[list[Path], list[str]]:
    """Write everything; the settings come first: what a stopped command leaves is divided alike by the next."""
    names = manifests["train"].class_names
    counted = Counter(manifests["train"].table["label"].to_pylist())
    paths = {split: job.output / f"{split}.parquet" for split in manifests}
    text = starter_experiment(
        DataFacts(
            dataset=job.dataset,
            items=items,
            manifests={split: str(paths.get(split, paths["val"])) for split in SPLITS},
            videos={split: len(manifest) for split, manifest in manifests.items()},
            class_counts=[counted[label] for label in range(len(names))],
            seen=infos,
        ),
        starter=job.starter,
        weights=job.weights,
        stated=job.stated,
    )
    notes: list[str] = []
    with writing(job.output):
        job.output.mkdir(parents=True, exist_ok=True)
        atomic_write(job.output / _SETTINGS, json.dumps(_settings(job), indent=2) + "\n")
        atomic_write(job.output / CLASSES, "".join(f"{name}\n" for name in names))
        for split, manifest in manifests.items():
            write_manifest(manifest, paths[split])
        experiment = job.output / EXPERIMENT
        if experiment.exists() and experiment.read_text(encoding="utf-8") != text:
            notes.append(f"{experiment} is kept as it is; remove it, and the same command writes a new one")
        else:
            atomic_write(experiment, text)
    return [*paths.values(), job.output / CLASSES, experiment], notes


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"class{'es' if len(names) > 1 else ''} {', '.join(map(repr, names[:MAX_NAMED]))}{more}"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _ids(videos: Sequence[OwnVideo]) -> str:
    more = f" and {len(videos) - MAX_NAMED} more" if len(videos) > MAX_NAMED else ""
    return ", ".join(video.video_id for video in videos[:MAX_NAMED]) + more
