"""A first experiment file for a user's own data: every choice follows from the files and says why in a comment.

The text is `starter.yaml.jinja`; what depends on the data is computed here. Numbers that don't come from the data are
those of the published experiments, or those of the demo where frames are as small as its.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from textwrap import wrap
from typing import Literal, NamedTuple, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
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
"""Below it the frames that `dense` takes between two of the video's own don't exist, and it would repeat each often."""
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


class _Recipe(NamedTuple):
    """How long is trained, and with which share of the full learning rate."""

    steps: int
    """Wanted in all; the epochs stay between the fewest and the most."""
    fewest_epochs: int
    most_epochs: int
    lr_share: float


_RECIPES: Mapping[tuple[Starter, bool], _Recipe] = {
    ("scratch", True): _Recipe(900, 5, 100, 1.0),
    ("finetune", True): _Recipe(300, 3, 30, 0.5),
    ("scratch", False): _Recipe(12_000, 30, 200, 1.0),
    ("finetune", False): _Recipe(3_000, 10, 30, 0.25),
}
"""By what is trained, and whether the network is as small as the demo's."""
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


def starter_experiment(facts: DataFacts, *, starter: Starter, weights: str | None, stated: Preset | None) -> str:
    """The text of the experiment file; it has passed the schema.

    Args:
        facts: Of the data.
        starter: `scratch` or `finetune`.
        weights: File that fine-tuning starts from; None: the released one.
        stated: The network of that file with its input; None: the released one.
    """
    finetunes = starter == "finetune"
    network, short_edge, why = _fine_tuned(facts, stated) if finetunes else _fitting(facts)
    is_small = network.crop_size < 100
    folder, slash, _ = facts.manifests["train"].rpartition("/")
    text = (
        _environment()
        .get_template("starter.yaml.jinja")
        .render(
            dataset=facts.dataset,
            items=facts.items,
            videos=facts.videos["train"],
            classes=len(facts.class_counts),
            fewest=min(facts.class_counts),
            most=max(facts.class_counts),
            seen=len(facts.seen),
            folder=folder + slash,
            manifests=facts.manifests,
            own_test=facts.manifests["val"] != facts.manifests["test"],
            starter=starter,
            finetunes=finetunes,
            why_network=why,
            model=network.model,
            frames=network.num_frames,
            crop_size=network.crop_size,
            short_edge=short_edge,
            is_small=is_small,
            weights=weights or RELEASED_WEIGHTS,
            own_weights=stated is not None,
            **_clip(facts, network.num_frames),
            **_training(facts.videos["train"], _RECIPES[starter, is_small], is_small=is_small),
        )
    )
    text = "".join(f"{part}\n" for line in text.splitlines() for part in _wrapped(line))
    config_from_mapping(cast(Mapping[str, JsonValue], parse_yaml(text)))
    return text


def _fine_tuned(facts: DataFacts, stated: Preset | None) -> tuple[Preset, int, str]:
    """The network that weights are of, the frames' shorter side, and why."""
    if stated is not None:
        short_edge = stated.crop_size * 8 // 7 // 2 * 2
        return _still_if_images(stated, facts), short_edge, "The network that the weights are of"
    released = _still_if_images(preset("morphmlp_s_16x4"), facts)
    return released, 256, "The network that the weights are of; its chunk lengths fix the crop"


def _fitting(facts: DataFacts) -> tuple[Preset, int, str]:
    """The network that suits the size of the frames, the frames' shorter side, and why."""
    pixels = round(median(min(info.width, info.height) for info in facts.seen))
    published = preset("morphmlp_s_16x4")
    if pixels >= 160:
        chosen, short_edge, why = published, 256, f"Frames have {pixels} pixels: MorphMLP-S as published, 224 of 256"
    elif pixels >= 64:
        smaller = replace(published.model, chunk_lengths=(14, 28, 49, 16))
        chosen, short_edge = replace(published, model=smaller, crop_size=112), 128
        why = f"Frames have only {pixels} pixels: MorphMLP-S on crops of 112, with the chunk lengths that divide them"
    else:
        chosen, short_edge, why = _DEMO, 36, f"Frames have only {pixels} pixels: the demo's network on crops of 32"
    trained = replace(chosen, model=replace(chosen.model, init="random_projection"))
    return _still_if_images(trained, facts), short_edge, why


def _still_if_images(chosen: Preset, facts: DataFacts) -> Preset:
    if facts.items == "videos":
        return chosen
    return replace(chosen, model=replace(chosen.model, temporal="none"), num_frames=1)


def _clip(facts: DataFacts, frames: int) -> dict[str, object]:
    """How clips of so many frames are taken, and how many of them cover a video of median length."""
    fps = median(info.fps for info in facts.seen)
    by_time = frames > 1 and fps >= _SLOW_FPS
    lengths = sorted(info.num_frames * (TARGET_FPS / info.fps if by_time else 1) for info in facts.seen)
    most = lengths[int(_LENGTH_SHARE * len(lengths))]
    stride = min(max(int(most // frames), 1), 4) if frames > 1 else 1
    return {
        "sampling": "dense" if by_time else "dense_decord",
        "stride": stride,
        "is_short": most < frames,
        "covered_s": frames * stride / TARGET_FPS,
        "length_s": median(info.num_frames / info.fps for info in facts.seen),
        "fps": fps,
        "clips": min(max(round(median(lengths) / (frames * stride)), 1), 4),
    }


def _training(videos: int, recipe: _Recipe, *, is_small: bool) -> dict[str, object]:
    """Batches, epochs and learning rate: some 16 steps an epoch at least, and so many in all that it can learn."""
    full_lr, full_batch = (1e-3, 16) if is_small else (4e-4, 64)
    sizes = (2**power for power in range(7))
    batch = max((n for n in sizes if n <= min(full_batch, videos) and (n <= 8 or videos >= 16 * n)), default=1)
    steps = videos // batch
    epochs = min(max(-(-recipe.steps // steps), recipe.fewest_epochs), recipe.most_epochs)
    return {
        "batch": batch,
        "steps": steps,
        "epochs": epochs,
        "warmup": max(1, round(epochs / 10)),
        "full_lr": full_lr,
        "full_batch": full_batch,
        "lr_share": recipe.lr_share,
        "lr": recipe.lr_share * full_lr * batch / full_batch,
    }


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quoted": _quoted, "number": _number}
    return environment


def _wrapped(line: str) -> list[str]:
    """A comment in lines that can be read; anything else as it is."""
    if not line.startswith("# "):
        return [line]
    return wrap(line, _WIDTH, subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)


def _number(value: float) -> str:
    """A number that YAML takes for one: it needs a point before the exponent."""
    mantissa, exponent = f"{value:.2e}".split("e")
    digits = mantissa.rstrip("0")
    return f"{digits}0e{int(exponent)}" if digits.endswith(".") else f"{digits}e{int(exponent)}"


def _quoted(text: str) -> str:
    """A text as YAML, in quotes unless it is a plain name or path that isn't read as something else, as `null` is."""
    is_plain = re.fullmatch(r"[A-Za-z][\w./-]*", text) and parse_yaml(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)
