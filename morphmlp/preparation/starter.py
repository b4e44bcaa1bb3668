"""A first experiment file for a user's own data: every choice follows from the files and says why in a comment.

Numbers that don't come from the data are those of the published experiments, or those of the demo where frames are as
small as its.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from textwrap import wrap
from typing import Literal

from pydantic import JsonValue

from morphmlp.config import ModelConfig
from morphmlp.config.loading import config_from_mapping, parse_yaml
from morphmlp.data.clips.sampling import TARGET_FPS
from morphmlp.data.datasets.own_folder import Items
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.models.presets import Preset, preset

Starter = Literal["scratch", "finetune"]
RELEASED_WEIGHTS = "mlp_s16x4_k400.pth"
"""What fine-tuning starts from unless other weights are named: MorphMLP-S, 16x4, trained on Kinetics-400."""
_WIDTH = 110
"""Signs of a comment's line."""
_SLOW_FPS = 10.0
"""Below it the frames that `dense` wants between two of the video's own don't exist, and it would repeat each often."""
_LENGTH_SHARE = 0.1
"""The share of videos that may be shorter than a clip, whose last frame is then repeated."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What is known of the data when the file is written."""

    dataset: str
    items: Items
    manifests: Mapping[str, str]
    """Paths of `train`, `val` and `test`."""
    videos: Mapping[str, int]
    """Videos by split."""
    class_counts: Sequence[int]
    """Training videos of each class."""
    seen: Sequence[VideoInfo]
    """Videos that were opened."""

    @property
    def short_edge(self) -> int:
        """Median of the frames' shorter sides, pixels."""
        return round(median(min(info.width, info.height) for info in self.seen))

    @property
    def seconds(self) -> float:
        """Median length."""
        return median(info.num_frames / info.fps for info in self.seen)

    @property
    def fps(self) -> float:
        """Median rate, frames per second."""
        return median(info.fps for info in self.seen)

    def frames_of_most(self, *, at_fps: float | None) -> float:
        """Frames that all but the shortest tenth of the videos have, at this rate; None: at their own."""
        lengths = sorted(info.num_frames * (1 if at_fps is None else at_fps / info.fps) for info in self.seen)
        return lengths[int(_LENGTH_SHARE * len(lengths))]


@dataclass(frozen=True, kw_only=True)
class _Size:
    """A network with the size of its input, and the recipe that it was trained with."""

    preset: Preset
    short_edge: int
    why: str
    is_small: bool
    """Whether it's the demo's network, with the demo's recipe."""


def starter_experiment(facts: DataFacts, *, starter: Starter, weights: str | None, stated: Preset | None) -> str:
    """The text of the experiment file; it has passed the schema.

    Args:
        facts: Of the data.
        starter: `scratch` or `finetune`.
        weights: File that fine-tuning starts from; None: the released one.
        stated: The network of that file with its input; None: the released one.
    """
    size = _size(facts, starter, stated)
    length = _Length.of(facts, size, starter)
    lines = [
        f"# A first experiment on {facts.dataset}: {_counted(facts)}.",
        "# Every value may be changed here, or for one run on the command line, as in --train.epochs 5.",
        f"#   python pipelines/train.py --config {_folder_of(facts)}experiment.yaml",
        f"name: {_quoted(f'{facts.dataset}-{starter}')}",
        f"dataset: {_quoted(facts.dataset)}",
        *_model_lines(facts, size, starter),
        *_data_lines(facts),
        *_clip_lines(facts, size),
        *_augment_lines(facts, size, starter),
        *_optim_lines(size, starter, length),
        *_test_lines(facts, size),
        *(_start_lines(weights or RELEASED_WEIGHTS, stated) if starter == "finetune" else ()),
    ]
    text = "".join(f"{part}\n" for line in lines for part in _wrapped(line))
    config_from_mapping(_mapping(text))
    return text


def _size(facts: DataFacts, starter: Starter, stated: Preset | None) -> _Size:
    if starter == "finetune" and stated is not None:
        small = stated.crop_size < 100
        edge = stated.crop_size * 8 // 7 // 2 * 2
        return _Size(preset=stated, short_edge=edge, why="the network that the weights are of", is_small=small)
    if starter == "finetune":
        return _Size(
            preset=_still_if_images(preset("morphmlp_s_16x4"), facts),
            short_edge=256,
            why="the network that the weights are of; its chunk lengths fix the crop",
            is_small=False,
        )
    edge = facts.short_edge
    published = preset("morphmlp_s_16x4")
    if edge >= 160:
        chosen, short_edge, why = published, 256, f"frames have {edge} pixels: MorphMLP-S as published, 224 of 256"
    elif edge >= 64:
        smaller = replace(published.model, chunk_lengths=(14, 28, 49, 16))
        chosen, short_edge = replace(published, model=smaller, crop_size=112), 128
        why = f"frames have only {edge} pixels: MorphMLP-S on crops of 112, with the chunk lengths that divide them"
    else:
        chosen, short_edge, why = _DEMO, 36, f"frames have only {edge} pixels: the demo's network on crops of 32"
    trained = replace(chosen, model=replace(chosen.model, init="random_projection"))
    return _Size(
        preset=_still_if_images(trained, facts), short_edge=short_edge, why=why, is_small=chosen.crop_size == 32
    )


_DEMO = Preset(
    model=ModelConfig(
        depths=(1, 1, 2, 1),
        embed_dims=(32, 64, 128, 128),
        chunk_lengths=(8, 16, 4, 1),
        mlp_ratio=3.0,
        drop_path_rate=0.0,
        num_classes=8,
        temporal="mixed",
        init="random_projection",
    ),
    num_frames=16,
    crop_size=32,
)


def _still_if_images(chosen: Preset, facts: DataFacts) -> Preset:
    if facts.items == "videos":
        return chosen
    return replace(chosen, model=replace(chosen.model, temporal="none"), num_frames=1)


@dataclass(frozen=True, kw_only=True)
class _Length:
    """Batches and epochs."""

    batch: int
    micro_batch: int
    epochs: int
    steps: int
    """Of an epoch."""

    @classmethod
    def of(cls, facts: DataFacts, size: _Size, starter: Starter) -> "_Length":
        """From the number of training videos: some 16 steps an epoch at least, and so many in all that it can learn."""
        videos = facts.videos["train"]
        most = 16 if size.is_small else 64
        batch = max(
            (n for n in (1, 2, 4, 8, 16, 32, 64) if n <= min(most, videos) and (n <= 8 or videos >= 16 * n)), default=1
        )
        steps = videos // batch
        wanted, fewest, most_epochs = {
            ("scratch", True): (900, 5, 100),
            ("finetune", True): (300, 3, 30),
            ("scratch", False): (12_000, 30, 200),
            ("finetune", False): (3_000, 10, 30),
        }[starter, size.is_small]
        epochs = min(max(-(-wanted // steps), fewest), most_epochs)
        return cls(batch=batch, micro_batch=min(8, batch), epochs=epochs, steps=steps)


def _model_lines(facts: DataFacts, size: _Size, starter: Starter) -> list[str]:
    model = replace(size.preset.model, num_classes=len(facts.class_counts))
    return [
        f"# {_sentence(size.why)}. num_classes: the folders of classes.txt.",
        "model:",
        f"  depths: {list(model.depths)}",
        f"  embed_dims: {list(model.embed_dims)}",
        f"  chunk_lengths: {list(model.chunk_lengths)}",
        f"  mlp_ratio: {model.mlp_ratio}",
        f"  drop_path_rate: {model.drop_path_rate}",
        f"  num_classes: {model.num_classes}",
        f"  temporal: {model.temporal}",
        *([] if model.branches is None else [f"  branches: [{', '.join(model.branches)}]"]),
        f"  init: {model.init}",
    ]


def _data_lines(facts: DataFacts) -> list[str]:
    same = facts.manifests["val"] == facts.manifests["test"]
    return [
        *(["# There is no third split: the test scores the validation videos."] if same else []),
        "data:",
        *(f"  {split}: {_quoted(path)}" for split, path in facts.manifests.items()),
    ]


def _clip(facts: DataFacts, size: _Size) -> tuple[str, int, str]:
    """Sampling, stride and why."""
    frames = size.preset.num_frames
    if frames == 1:
        return "dense_decord", 1, "an image is a video of one frame"
    sampling, at_fps = ("dense", TARGET_FPS) if facts.fps >= _SLOW_FPS else ("dense_decord", None)
    most = facts.frames_of_most(at_fps=at_fps)
    stride = min(max(int(most // frames), 1), 4)
    if sampling == "dense":
        reason = (
            f"a clip covers {frames * stride / TARGET_FPS:.1f} s of the {facts.seconds:.1f} s that half of the videos "
            "have; strides count frames at 30 a second whatever a file's rate, at most 4 as published"
        )
    else:
        reason = f"files have only {facts.fps:.3g} frames a second, so strides count their own frames"
    if most < frames:
        reason += f"; a tenth of the videos or more are shorter than {frames} frames and repeat their last one"
    return sampling, stride, reason


def _clip_lines(facts: DataFacts, size: _Size) -> list[str]:
    sampling, stride, reason = _clip(facts, size)
    return [
        f"# {_sentence(reason)}.",
        f"clip: {{sampling: {sampling}, num_frames: {size.preset.num_frames}, frame_stride: {stride}, "
        f"crop_size: {size.preset.crop_size}, short_edge: {size.short_edge}, channel_order: rgb}}",
    ]


def _augment_lines(facts: DataFacts, size: _Size, starter: Starter) -> list[str]:
    flip = "# flip mirrors half of the clips: set it to 0.0 where left and right tell classes apart."
    if size.is_small:
        return [
            f"{flip}",
            "augment: {repeats: 1, short_edge: null, rand_augment: null, scale: [0.7, 1.0], aspect: [0.9, 1.1111], "
            "flip: 0.5, erase: 0.0}",
            "# MixUp and CutMix would blur so small frames.",
            "mixing: {mixup: 0.0, cutmix: 0.0, label_smoothing: 0.1}",
        ]
    scale, mixing, why = ("[0.08, 1.0]", "{mixup: 0.8, cutmix: 1.0, label_smoothing: 0.1}", "as published")
    if starter == "finetune":
        scale, mixing = "[0.3, 1.0]", "{mixup: 0.0, cutmix: 0.0, label_smoothing: 0.1}"
        why = "weaker than published, for a short training from weights: larger crops, no mixing of labels"
    return [
        f"{flip} The rest: {why}.",
        f"augment: {{repeats: 1, short_edge: {size.short_edge}, rand_augment: rand-m7-n4-mstd0.5-inc1, "
        f"scale: {scale}, aspect: [0.75, 1.3333], flip: 0.5, erase: {0.25 if starter == 'scratch' else 0.0}}}",
        f"mixing: {mixing}",
    ]


def _optim_lines(size: _Size, starter: Starter, length: _Length) -> list[str]:
    published, batch = (1e-3, 16) if size.is_small else (4e-4, 64)
    share = 1.0 if starter == "scratch" else 0.25 if not size.is_small else 0.5
    lr = share * published * length.batch / batch
    warmup = max(1, round(length.epochs / 10))
    lower = "" if share == 1 else f", times {share:g}: weights that have learnt something move less"
    words = "the demo's" if size.is_small else "the published"
    lines = [
        f"# lr: {words} {_number(published)} for {batch} videos a step, in proportion to {length.batch}{lower}. "
        "Warm-up: a tenth of the epochs.",
        f"optim: {{lr: {_number(lr)}, min_lr: {_number(lr / 100)}, warmup_epochs: {warmup}, weight_decay: 0.05, "
        f"clip_norm: {5.0 if size.is_small else 20.0}}}",
    ]
    if starter == "finetune":
        lines += [
            "# With few videos a class try, one by one: optim.layer_decay: 0.75 (layers near the input learn slower), "
            "optim.head_lr_factor: 10.0 (the fresh head learns faster), train.freeze: backbone (only the head learns).",
        ]
    return [
        *lines,
        f"# {length.steps} steps of {length.batch} videos an epoch, some {length.steps * length.epochs:,} in all.",
        f"train: {{epochs: {length.epochs}, global_batch_size: {length.batch}, micro_batch_size: {length.micro_batch}, "
        "precision: auto, seed: 0}",
    ]


def _test_lines(facts: DataFacts, size: _Size) -> list[str]:
    if facts.items == "images":
        views, why = "num_clips: 1, num_crops: 1", "One view of each image, its centre"
    else:
        sampling, stride, _ = _clip(facts, size)
        frames = median(
            info.num_frames * (TARGET_FPS / info.fps if sampling == "dense" else 1.0) for info in facts.seen
        )
        clips = min(max(round(frames / (size.preset.num_frames * stride)), 1), 4)
        crops = 3 if clips == 1 else 1
        views = f"num_clips: {clips}, num_crops: {crops}"
        why = (
            "One clip covers most of a video; three crops see all of its width"
            if clips == 1
            else f"{clips} clips cover a video of median length"
        )
    own_test = facts.manifests["val"] != facts.manifests["test"]
    checkpoint = (
        "The best validated checkpoint is tested, on videos that had no say in the choice"
        if own_test
        else "The last checkpoint is tested: the best would have been chosen on the very videos that it's tested on"
    )
    return [f"# {why}. {checkpoint}.", f"test: {{{views}, checkpoint: {'best' if own_test else 'last'}}}"]


def _start_lines(weights: str, stated: Preset | None) -> list[str]:
    where = "" if stated is not None else " docs/weights.md says where released weights come from."
    return [
        "# The head is fresh, as the classes are others; what else the file doesn't have starts fresh too, and the run "
        f"says what.{where}",
        f"start_from: {{weights: {_quoted(weights)}, carry: fitting, replace_head: true}}",
    ]


def _wrapped(line: str) -> list[str]:
    """A comment in lines that can be read; anything else as it is."""
    if not line.startswith("# "):
        return [line]
    return wrap(line, _WIDTH, subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)


def _counted(facts: DataFacts) -> str:
    fewest, most = min(facts.class_counts), max(facts.class_counts)
    each = f"{fewest} to {most}" if fewest != most else f"{fewest}"
    return (
        f"{facts.videos['train']:,} training {facts.items} of {len(facts.class_counts)} classes ({each} a class), "
        f"{len(facts.seen)} looked at"
    )


def _folder_of(facts: DataFacts) -> str:
    folder = facts.manifests["train"].rpartition("/")[0]
    return f"{folder}/" if folder else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    digits = mantissa.rstrip("0")
    return f"{digits}0e{int(exponent)}" if digits.endswith(".") else f"{digits}e{int(exponent)}"


def _quoted(text: str) -> str:
    """A text as YAML, in quotes where it needs them."""
    return text if parse_yaml(f"x: {text}") == {"x": text} and "#" not in text else json.dumps(text, ensure_ascii=False)


def _mapping(text: str) -> Mapping[str, JsonValue]:
    content = parse_yaml(text)
    if not isinstance(content, dict):
        raise TypeError(content)
    return content
