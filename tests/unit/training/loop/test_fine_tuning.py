"""Frozen parts, layer-wise rates and class weights against naive loops; two workers against one; resumed anywhere."""

from dataclasses import replace

import pytest
import tiny_training as tiny
import torch
from forked_workers import start_workers
from torch import nn
from torch.nn import functional

from morphmlp.config.loading import config_from_mapping, config_to_mapping, with_overrides
from morphmlp.data.clips.augment import normalise
from morphmlp.data.stream.plan import Cursor, random_generator, random_seed
from morphmlp.tasks.classification import mix, soft_targets
from morphmlp.training.loop.loop import StepSummary, fit
from morphmlp.training.loop.recipe import learning_rate
from morphmlp.training.loop.state import checkpoint_from, restore, snapshot

STEPS = 4
CASES = {
    "first parts frozen": {"train.freeze": ["stem", "stage1"]},
    "a middle part frozen": {"train.freeze": ["stage2"]},
    "backbone frozen": {"train.freeze": "backbone"},
    "head frozen": {"train.freeze": ["head"]},
    "layer decay": {"optim.layer_decay": 0.5},
    "head factor": {"optim.head_lr_factor": 10.0},
    "class weights": {"train.class_weights": [0.5, 1.0, 3.0, 1.5]},
    "all": {
        "train.freeze": ["stem"],
        "optim.layer_decay": 0.7,
        "optim.head_lr_factor": 3.0,
        "train.class_weights": [2.0, 0.1, 0.7, 1.0],
        "train.ema_decay": 0.5,
    },
}
FROZEN_MODULES = {
    "first parts frozen": ("patch_embed1", "blocks1"),
    "a middle part frozen": ("patch_embed2", "blocks2"),
    "backbone frozen": (*(f"{kind}{k}" for k in (1, 2, 3, 4) for kind in ("patch_embed", "blocks")), "norm"),
    "head frozen": ("head",),
    "all": ("patch_embed1",),
}
# Layers from the end of a network of one block a stage: norm and head 0, stem 5.
FROM_THE_END = {
    **{f"{kind}{stage}": 5 - stage for stage in (1, 2, 3, 4) for kind in ("patch_embed", "blocks")},
    "norm": 0,
    "head": 0,
    "patch_embed1": 5,
}


def config_of(case):
    return config_from_mapping(
        with_overrides(config_to_mapping(tiny.CONFIG), {"model.drop_path_rate": 0.3, **CASES[case]})
    )


def recipe_of(config):
    return tiny.recipe_of(config, max_steps=STEPS)


def one_optimizer_each(model, weight_decay):
    return {
        name: torch.optim.AdamW(
            [parameter], betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay if parameter.ndim > 1 else 0.0
        )
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def naive_loss_sum(config, model, batch, cursor):
    key = (config.train.seed, cursor.epoch, cursor.step, batch.plan.index)
    torch.manual_seed(random_seed(*key, "drop path"))
    targets = soft_targets(batch.labels, num_classes=tiny.CLASSES, label_smoothing=0.1)
    clips, targets = mix(normalise(batch.clips), targets, mixing=config.mixing, rng=random_generator(*key, "mixing"))
    weight = None if config.train.class_weights is None else torch.tensor(config.train.class_weights)
    return functional.cross_entropy(model(clips), targets, weight=weight, reduction="sum")


def naive_weights(case):
    """The weights after some steps, as a script would take them that knows only torch and the recipe's draws."""
    config = config_of(case)
    recipe, model = recipe_of(config), tiny.new_state(tiny.CONFIG, tiny.CPU).model
    for block, like in zip(model.modules(), tiny.new_state(config, tiny.CPU).model.modules(), strict=True):
        if hasattr(block, "drop_path_rate"):
            block.drop_path_rate = like.drop_path_rate
    model.train()
    tiny.hold_biases_before_batch_norm(model)
    for name in FROZEN_MODULES.get(case, ()):
        model.get_submodule(name).requires_grad_(False).eval()
    decay, head = config.optim.layer_decay, config.optim.head_lr_factor
    optimizers = one_optimizer_each(model, config.optim.weight_decay)
    cursor = Cursor()
    batches = tiny.ListClips(recipe.plan)
    running = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d) and module.training]
    while recipe.plan.step_of(cursor) < STEPS:
        for micro_batches in batches.train(cursor):
            kept = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in running]
            sums = [(torch.zeros_like(mean), torch.zeros_like(var)) for mean, var in kept]
            for norm in running:
                norm.momentum = 1.0
            model.zero_grad()
            clips_per_step = sum(len(batch.labels) for batch in micro_batches)
            for batch in micro_batches:
                (naive_loss_sum(config, model, batch, cursor) / clips_per_step).backward()
                for norm, (mean, var) in zip(running, sums, strict=True):
                    mean.add_(norm.running_mean * len(batch.labels) / clips_per_step)
                    var.add_(norm.running_var * len(batch.labels) / clips_per_step)
            for norm, (mean, var), (old_mean, old_var) in zip(running, sums, kept, strict=True):
                norm.running_mean.copy_(0.9 * old_mean + 0.1 * mean)
                norm.running_var.copy_(0.9 * old_var + 0.1 * var)
            nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
            lr = learning_rate(
                cursor.epoch + cursor.step / recipe.plan.steps_per_epoch,
                whole=recipe.length.whole,
                optim=config.optim,
            )
            for name, optimizer in optimizers.items():
                module = name.partition(".")[0]
                factor = decay ** FROM_THE_END[module] * (head if module == "head" else 1.0)
                optimizer.param_groups[0]["lr"] = lr * factor
                optimizer.step()
            cursor = recipe.plan.advance(cursor)
            if recipe.plan.step_of(cursor) == STEPS:
                break
    return model.state_dict()


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def trained(case):
    """A case, its configuration, and what it came to alone."""
    config = config_of(case)
    state, summaries = tiny.train(recipe_of(config), config=config)
    return case, config, state, summaries


def test_training_is_that_of_a_naive_loop(case):
    config = config_of(case)
    state, _ = tiny.train(recipe_of(config), config=config, prepare=tiny.hold_biases_before_batch_norm)
    expected = naive_weights(case)
    for name, value in state.model.state_dict().items():
        if "num_batches" not in name:
            assert torch.allclose(value, expected[name], rtol=1e-4, atol=2e-6), name


def test_frozen_parts_and_their_statistics_stay_as_they_were(trained):
    case, config, state, _ = trained
    fresh, trained_weights = tiny.new_state(config, tiny.CPU).model.state_dict(), state.model.state_dict()
    frozen = {name for name in fresh if name.partition(".")[0] in FROZEN_MODULES.get(case, ())}
    assert frozen or case not in FROZEN_MODULES
    changed = {name for name in fresh if not torch.equal(fresh[name], trained_weights[name])}
    assert not changed & frozen
    assert any(name.startswith("head") for name in changed) or case == "head frozen"
    assert ("patch_embed1.norm1.running_mean" in changed) == ("patch_embed1" not in FROZEN_MODULES.get(case, ()))


def test_optimiser_and_averages_leave_frozen_parameters_out(trained):
    case, config, state, _ = trained
    trains = {name for name, p in state.model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name, _ in state.model.named_parameters() if name not in trains} == set(
        FROZEN_MODULES.get(case, ())
    )
    assert sum(len(group["params"]) for group in state.optimizer.param_groups) == len(trains)
    assert (state.averaged is None) == (config.train.ema_decay is None)
    if state.averaged is not None:
        assert set(state.averaged.state_dict()) == trains


@pytest.mark.parametrize("steps", range(1, STEPS))
def test_training_resumed_after_any_step_ends_bit_for_bit_alike(trained, steps):
    _, config, state, summaries = trained
    recipe = recipe_of(config)
    stopped = tiny.new_state(config, tiny.CPU)
    running = fit(stopped, stopped.model, tiny.ListClips(recipe.plan), recipe=recipe, device=tiny.CPU)
    while not (isinstance(summary := next(running), StepSummary) and summary.step + 1 == steps):
        pass
    content = snapshot(stopped, config=config, data_fingerprint="1:a")
    resumed = tiny.new_state(config, tiny.CPU)
    restore(resumed, checkpoint_from(content), config=config, data_fingerprint="1:a")
    _, after = tiny.train(recipe, config=config, state=resumed)
    assert tiny.losses_of(after) == tiny.losses_of(summaries)[steps:]
    assert tiny.equal(
        snapshot(resumed, config=config, data_fingerprint="1:a"), snapshot(state, config=config, data_fingerprint="1:a")
    )


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """All cases by two processes; what each saw, by case."""
    folder = tmp_path_factory.mktemp("workers")
    jobs = [(config_of(case), recipe_of(config_of(case))) for case in CASES]
    start_workers(tiny.train_jobs_as_worker, 2, str(folder), jobs, count=2)
    return {
        case: [torch.load(folder / f"case{number}-worker{rank}.pt") for rank in range(2)]
        for number, case in enumerate(CASES)
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_workers_train_as_one(case, two_workers):
    config = config_of(case)
    state, summaries = tiny.train(recipe_of(config), config=config, prepare=tiny.hold_biases_before_batch_norm)
    one, other = two_workers[case]
    assert one["losses"] == other["losses"] == pytest.approx(tiny.losses_of(summaries), rel=1e-4)
    for name, value in state.model.state_dict().items():
        assert torch.equal(one["model"][name], other["model"][name]), name
        assert torch.allclose(one["model"][name].float(), value.float(), rtol=1e-3, atol=1e-4), name


def test_the_rates_of_layers_are_those_of_beit():
    """With 3 blocks in a stage: the factor is decay to the number of layers between a parameter's and the head."""
    config = replace(
        tiny.CONFIG,
        model=replace(tiny.CONFIG.model, depths=(2, 1, 3, 1)),
        optim=replace(tiny.CONFIG.optim, layer_decay=0.5, head_lr_factor=7.0),
    )
    state = tiny.new_state(config, tiny.CPU)
    factors = {id(p): group["lr_factor"] for group in state.optimizer.param_groups for p in group["params"]}
    found = {name: factors[id(parameter)] for name, parameter in state.model.named_parameters()}
    layers = ["patch_embed1", "blocks1.0", "blocks1.1", "blocks2.0", "blocks3.0", "blocks3.1", "blocks3.2", "blocks4.0"]
    steps_down = {"patch_embed2": "blocks2.0", "patch_embed3": "blocks3.0", "patch_embed4": "blocks4.0"}
    for name, factor in found.items():
        prefix = ".".join(name.split(".")[:2]) if name.startswith("blocks") else name.split(".")[0]
        prefix = steps_down.get(prefix, prefix)
        if prefix == "norm":
            assert factor == 1.0
        elif prefix == "head":
            assert factor == 7.0
        else:
            assert factor == 0.5 ** (len(layers) - layers.index(prefix)), name
