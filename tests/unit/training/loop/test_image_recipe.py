"""DeiT's image recipe, as `experiments/imagenet/` has it, against timm and Pillow; docs/decisions/0018 lists its rules.

Where both sides draw, timm's generators are replaced by ours, so that results have to be equal and not only alike.
"""

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_training as tiny
import torch
from PIL import Image
from timm.data import mixup
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler

from morphmlp.config import load_config
from morphmlp.config.schema import MixingConfig
from morphmlp.data.clips.augment import augment_clip, erase_normalised, normalise
from morphmlp.data.clips.draws import (
    Box,
    ClipKey,
    draw_clip,
)
from morphmlp.data.clips.extract import TrainClips
from morphmlp.data.decoding.isolation.isolated import Limits, isolated_videos
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.stream.batches import ClipShape, assemble
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import Cursor, MicroBatchPlan, TrainPlan, epoch_order, random_seed
from morphmlp.models import MorphMLP
from morphmlp.tasks.classification import cutmix_box, mix, soft_targets
from morphmlp.training.loop.loop import Stepper, seed_draws
from morphmlp.training.loop.recipe import build_optimizer, learning_rate
from morphmlp.training.loop.state import checkpoint_from, snapshot
from morphmlp.training.loop.step_guard import StepGuard

CONFIG = load_config(Path(__file__).parents[4] / "experiments" / "imagenet" / "morphmlp_t.yaml")
AUGMENT, OPTIM = CONFIG.augment, CONFIG.optim


# Mixing.


class OurNumpy:
    """numpy for timm's mixing: coins and boxes from our generator, shares from a list."""

    sqrt, clip = staticmethod(np.sqrt), staticmethod(np.clip)

    def __init__(self, rng, *, prob, both):
        coins = itertools.chain([] if prob < 1 else [0.0], iter(rng.random, None))
        self.random = SimpleNamespace(
            rand=lambda: next(coins), beta=rng.beta, randint=lambda low, high, size=None: int(rng.integers(low, high))
        )


class Share:
    """A generator whose shares are those of a list; everything else is numpy's."""

    def __init__(self, seed, share):
        self._rng, self._share = np.random.default_rng(seed), share

    def beta(self, _a, _b):
        return self._share

    def random(self):
        return self._rng.random()

    def integers(self, low, high):
        return self._rng.integers(low, high)


@pytest.mark.parametrize(
    ("mixup_alpha", "cutmix_alpha", "prob", "switch_prob"),
    [(0.8, 1.0, 1.0, 0.5), (0.8, 1.0, 0.5, 0.2), (0.8, 0.0, 1.0, 0.5), (0.0, 1.0, 1.0, 0.5), (0.8, 1.0, 1.0, 1.0)],
)
def test_mixed_clips_and_targets_are_timms_for_the_same_draws(
    mixup_alpha, cutmix_alpha, prob, switch_prob, monkeypatch
):
    torch.manual_seed(0)
    images, labels = torch.randn(6, 3, 16, 16), torch.tensor([0, 3, 1, 1, 2, 9])
    targets = soft_targets(labels, num_classes=10, label_smoothing=0.1)
    ways = set()
    for seed in range(24):
        share = (0.75, 0.4375, 0.9375, 0.0)[seed % 4]  # boxes of even sides: 8, 12, 4 and 16
        ours, ours_targets = mix(
            images,
            targets,
            mixing=MixingConfig(
                mixup=mixup_alpha, cutmix=cutmix_alpha, label_smoothing=0.1, prob=prob, switch_prob=switch_prob
            ),
            rng=Share(seed, share),
        )
        timms = mixup.Mixup(
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            prob=prob,
            switch_prob=switch_prob,
            mode="batch",
            label_smoothing=0.1,
            num_classes=10,
        )
        monkeypatch.setattr(mixup, "np", OurNumpy(Share(seed, share), prob=prob, both=mixup_alpha and cutmix_alpha))
        expected, expected_targets = timms(images.clone(), labels)
        assert torch.allclose(ours, expected, atol=1e-6)
        assert torch.allclose(ours_targets, expected_targets, atol=1e-6)
        kept = (ours == images).float().mean()
        ways.add("none" if kept == 1 else "mixup" if kept < 0.01 else "cutmix")
    assert ("none" in ways) == (prob < 1)
    assert ("mixup" in ways) == (mixup_alpha > 0 and switch_prob < 1)
    assert ("cutmix" in ways) == (cutmix_alpha > 0)


def test_cutmix_boxes_are_timms_but_for_the_last_line_of_odd_sides(monkeypatch):
    """DeiT's timm (0.3.2) halves an odd side twice, rounding down, as the video recipe does; today's doesn't."""
    for seed in range(300):
        share = np.random.default_rng(seed).random()
        monkeypatch.setattr(mixup, "np", OurNumpy(Share(seed, share), prob=1.0, both=True))
        top, bottom, left, right = mixup.rand_bbox((4, 3, 30, 41), share)
        rows, columns = cutmix_box(share, height=30, width=41, rng=Share(seed, share))
        assert (rows.start, columns.start) == (top, left)
        for size, ours, timms in ((30, rows.stop, bottom), (41, columns.stop, right)):
            odd = int(size * np.sqrt(1 - share)) % 2
            assert timms - ours in ({0, 1} if odd else {0})  # 0 where the border cuts it off


# Repeated augmentation.


def ra_sampler(order, *, world, rank, repeats=3):
    """DeiT's RASampler (samplers.py) over a permutation, as a list."""
    num_samples = -(-len(order) * repeats // world)
    indices = [row for row in order for _ in range(repeats)]
    indices += indices[: num_samples * world - len(indices)]
    return indices[rank : num_samples * world : world][: len(order) // 256 * 256 // world]


@pytest.mark.parametrize("world", [1, 4, 8])
def test_copies_are_dealt_out_as_by_deits_sampler(world):
    num_videos, batch = 3000, 256
    plan = TrainPlan(num_videos=num_videos, global_batch_size=batch, micro_batch_size=batch // world, seed=5, copies=3)
    order = epoch_order(num_videos, seed=5, epoch=2).tolist()
    dealt = list(plan.micro_batches(Cursor(epoch=2), worker=0, num_workers=1))
    assert plan.steps_per_epoch == num_videos // batch
    for rank in range(world):
        expected = ra_sampler(order, world=world, rank=rank)
        rows = [row for one in dealt if one.index == rank for row in one.rows.tolist()]
        assert rows == expected[: len(rows)]
        assert len(expected) - len(rows) < batch // world  # drop_last


def test_an_epoch_sees_a_third_of_the_videos_three_times_in_different_micro_batches():
    plan = TrainPlan(num_videos=1000, global_batch_size=100, micro_batch_size=25, seed=0, copies=3)
    dealt = list(plan.micro_batches(Cursor(), worker=0, num_workers=1))
    seen = [pair for one in dealt for pair in zip(one.rows.tolist(), one.copy_numbers.tolist(), strict=True)]
    assert len(seen) == len(set(seen)) == 1000
    assert len({row for row, _ in seen}) == 334
    assert all(len(set(one.rows.tolist())) == len(one.rows) for one in dealt)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_copies_resume_and_are_shared_like_all_else(num_workers):
    plan = TrainPlan(num_videos=50, global_batch_size=10, micro_batch_size=4, seed=1, copies=3)

    def read(cursor, workers):
        parts = [plan.micro_batches(cursor, worker=worker, num_workers=workers) for worker in range(workers)]
        found = [(one.step, one.index, one.rows.tolist(), one.copy_numbers.tolist()) for part in parts for one in part]
        return sorted(found)

    whole = read(Cursor(epoch=1), 1)
    assert read(Cursor(epoch=1), num_workers) == whole
    assert read(Cursor(epoch=1, step=2), num_workers) == [one for one in whole if one[0] >= 2]
    assert all(0 < len(rows) <= plan.micro_batch_size for _, _, rows, _ in whole)
    assert [sum(len(one[2]) for one in whole if one[0] == step) for step in range(5)] == [10] * 5


def test_each_copy_has_draws_of_its_own_and_the_only_one_those_of_always():
    boxes = {
        draw_clip(
            AUGMENT,
            ClipKey(seed=0, epoch=0, video_id="v", copy=copy),
            repeat=0,
            height=300,
            width=400,
            crop_size=224,
        ).box
        for copy in range(3)
    }
    assert len(boxes) == 3
    assert ClipKey(seed=0, epoch=0, video_id="v").of("crop") == (0, 0, "v", "crop")


# Optimisation.


@pytest.mark.parametrize("warmup_epochs", [0, 5, 20])
@pytest.mark.parametrize("schedule", ["deit", "epochs"])
def test_learning_rates_are_those_of_timms_scheduler_in_every_epoch(schedule, warmup_epochs):
    optim = replace(OPTIM, schedule=schedule, warmup_epochs=warmup_epochs)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=optim.lr)
    scheduler = CosineLRScheduler(
        optimizer, t_initial=300, lr_min=optim.min_lr, warmup_t=warmup_epochs, warmup_lr_init=optim.warmup_lr
    )
    for epoch in range(300):  # as DeiT's and timm's main loops have it
        rate = optimizer.param_groups[0]["lr"]
        for share in (0.0, 0.4, 0.999):
            assert learning_rate(epoch + share, whole=300, optim=optim) == pytest.approx(rate, rel=1e-12)
        scheduler.step(epoch if schedule == "deit" else epoch + 1)


def test_the_first_two_epochs_of_deit_have_the_least_rate_and_the_cosine_sets_in_below_the_full_one():
    optim = replace(OPTIM, schedule="deit")
    assert [learning_rate(epoch, whole=300, optim=optim) for epoch in (0, 1)] == [1e-6, 1e-6]
    assert max(learning_rate(epoch, whole=300, optim=optim) for epoch in range(300)) == pytest.approx(
        1e-5 + 0.989 * (1e-3 - 1e-5), rel=1e-3
    )
    stepwise = [learning_rate(step / 10, whole=300, optim=OPTIM) for step in range(3001)]
    assert (stepwise[0], max(stepwise), stepwise[-1]) == (1e-6, 1e-3, pytest.approx(1e-5))


def test_the_rate_is_deits_for_the_batch():
    assert OPTIM.lr == 5e-4 * CONFIG.train.global_batch_size / 512


def test_parameter_groups_are_timms():
    with torch.device("meta"):
        model = MorphMLP(CONFIG.model, num_frames=1, crop_size=224)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    undecayed, decayed = param_groups_weight_decay(model, OPTIM.weight_decay)
    ours = {0.0: set(), OPTIM.weight_decay: set()}
    for group in build_optimizer(model, OPTIM).param_groups:
        assert (group["betas"], group["eps"], group["lr_factor"]) == ((0.9, 0.999), 1e-8, 1.0)
        ours[group["weight_decay"]] |= {names[id(parameter)] for parameter in group["params"]}
    for group in (undecayed, decayed):
        assert ours[group["weight_decay"]] == {names[id(parameter)] for parameter in group["params"]}
        assert group["params"]


def test_without_a_limit_gradients_stay_as_they_are():
    norms = {}
    for limit in (None, 1e-3):
        config = replace(tiny.CONFIG, optim=replace(tiny.CONFIG.optim, clip_norm=limit))
        state, summaries = tiny.train(tiny.recipe_of(config, max_steps=1), config=config)
        norms[limit] = torch.cat([p.grad.flatten() for p in state.model.parameters()]).norm().item()
        reported = summaries[0].grad_norm.item()
    assert norms[None] == pytest.approx(reported, rel=1e-5)
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("weights", ["averaged", "raw"])
def test_averages_are_kept_whether_they_are_tested_or_not(weights):
    config = replace(
        tiny.CONFIG,
        train=replace(tiny.CONFIG.train, ema_decay=0.9),
        test=replace(tiny.CONFIG.test, weights=weights),
    )
    state, _ = tiny.train(tiny.recipe_of(config, max_steps=2), config=config)
    checkpoint = checkpoint_from(snapshot(state, config=config, data_fingerprint="1:a"))
    kept, own = checkpoint.averaged["head.weight"], checkpoint.model["head.weight"]
    assert not torch.equal(kept, own)
    assert torch.equal(checkpoint.weights["head.weight"], kept if weights == "averaged" else own)


def test_the_network_has_the_experiments_normalisation():
    from morphmlp.tasks.factory import task_of

    with torch.device("meta"):
        network = task_of(CONFIG).network()
    assert (network.pixel_mean, network.pixel_std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# Erasing.


def test_the_loop_erases_what_is_normalised_before_it_is_mixed_and_leaves_drop_path_alone():
    recipe = tiny.recipe_of()
    plan = next(iter(recipe.plan.micro_batches(Cursor(), worker=0, num_workers=1)))
    plain = tiny.micro_batch_of(plan)
    box = Box(top=1, left=2, height=9, width=8)
    batch = replace(plain, erased=(None, box, None, None))
    seen, next_draws = [], []

    class Watching(type(recipe.task)):
        def mix(self, clips, targets, rng):
            seen.append(clips.clone())
            next_draws.append(torch.rand(3))
            return clips, targets

    task = Watching(**vars(recipe.task))
    for one in (batch, batch, plain):
        state = tiny.new_state()
        stepper = Stepper(state, state.model, recipe=replace(recipe, task=task), device=tiny.CPU, guard=StepGuard())
        stepper.take([one])
    expected = normalise(plain.clips)
    seed_draws(random_seed(recipe.plan.seed, 0, 0, 0, "erasing"), tiny.CPU)
    erase_normalised(expected, batch.erased)
    assert torch.equal(seen[0], expected)
    assert torch.equal(seen[1], expected)
    assert torch.equal(seen[2], normalise(plain.clips))
    assert torch.equal(next_draws[0], next_draws[2])


# Both from the files on: what a worker gets of images with copies, a broken one among them.


def test_copies_reach_the_worker_each_with_its_own_clip_and_its_own_box(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 50, 60, 3), dtype=np.uint8)
    for number in range(4):
        Image.fromarray(pixels[number]).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    manifest = manifest_from_rows(
        video_ids=[f"v{number}" for number in range(4)],
        paths=[str(tmp_path / f"{number}.png") for number in range(4)],
        labels=[0, 1, 2, 3],
        splits=["train"] * 4,
        sizes_bytes=[1] * 4,
        class_names=["a", "b", "c", "d"],
    )
    augment = replace(AUGMENT, erase=0.7)
    extractor = TrainClips(clip=CONFIG.clip, augment=augment)
    limits = Limits(timeout_s=20.0)
    task = DecodeTask(extractor=extractor, policy=DecodePolicy(decoder="pyav", retry_with=None, limits=limits))
    rows, copies = np.array([1, 2, 1, 0, 1]), np.array([0, 1, 1, 2, 2])
    plan = MicroBatchPlan(epoch=3, step=0, index=0, seed=9, rows=rows, copies=copies)
    try:
        table = task(request_table(manifest, [plan]))
    finally:
        isolated_videos("pyav", limits).close()
    (batch,) = assemble(iter([table]), iter([plan]), manifest=manifest, stage="train", shape=ClipShape.of(extractor))
    good = [(1, 0), (1, 1), (0, 2), (1, 2)]
    keys = [ClipKey(seed=9, epoch=3, video_id=f"v{row}", copy=copy) for row, copy in good]
    draws = [draw_clip(augment, key, repeat=0, height=50, width=60, crop_size=224) for key in keys]
    for clip, draw, (row, _) in zip(batch.clips, draws, good, strict=True):
        assert torch.equal(clip, augment_clip(torch.from_numpy(pixels[row : row + 1]), draw, size=224))
    assert batch.erased == tuple(draw.erase and draw.erase.box for draw in draws)
    assert None in batch.erased
    assert any(batch.erased)
    assert (batch.labels.tolist(), [video.video_id for video in batch.broken]) == ([1, 1, 0, 1], ["v2"])
