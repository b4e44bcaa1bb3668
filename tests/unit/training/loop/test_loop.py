"""The loop against naive computations: accumulation, broken videos, resumption, and one worker against two."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from forked_workers import start_workers
from torch.nn import functional

from morphmlp.data.clips.augment import normalise
from morphmlp.data.stream.plan import Cursor
from morphmlp.training.loop.loop import RoundSummary, Stepper, StepSummary, fit
from morphmlp.training.loop.recipe import learning_rate
from morphmlp.training.loop.state import checkpoint_from, restore, snapshot
from morphmlp.training.loop.step_guard import StepGuard

GOLDEN = Path(__file__).parents[3] / "golden" / "loss_curve.json"
FINGERPRINT = "12:abc"


def weights_of(state):
    return {name: value.clone() for name, value in state.model.state_dict().items()}


def gradients_of_one_step(config, *, broken=(), frozen=True):
    """Gradients, sums and norm of the first step."""
    config = replace(config, optim=replace(config.optim, clip_norm=1e9))
    recipe = replace(tiny.recipe_of(config), optim=config.optim)
    state = tiny.new_state(config, tiny.CPU)
    if frozen:
        tiny.freeze_batch_norm(state.model)
    state.model.train()
    micro_batches = next(iter(tiny.ListClips(recipe.plan, broken=broken).train(Cursor())))
    stepper = Stepper(state, state.model, recipe=recipe, device=tiny.CPU, guard=StepGuard())
    summary = stepper.take(micro_batches)
    return {name: p.grad for name, p in state.model.named_parameters()}, summary.totals, summary.grad_norm


def gradients_of_one_big_mean(config, *, broken=()):
    """The same by hand: one forward pass over the clips of the whole step, and the mean of their losses."""
    recipe = tiny.recipe_of(config)
    model = tiny.freeze_batch_norm(tiny.new_state(config, tiny.CPU).model)
    batches = next(iter(tiny.ListClips(recipe.plan, broken=broken).train(Cursor())))
    clips, labels = torch.cat([b.clips for b in batches]), torch.cat([b.labels for b in batches])
    loss = functional.cross_entropy(model(normalise(clips)), labels, label_smoothing=config.mixing.label_smoothing)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, loss.item(), len(labels)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 4, 6])
def test_accumulating_over_micro_batches_is_one_big_mean(micro_batch_size):
    config = tiny.without_randomness()
    config = replace(config, train=replace(config.train, micro_batch_size=micro_batch_size))
    gradients, totals, norm = gradients_of_one_step(config)
    expected, loss, clips = gradients_of_one_big_mean(config)
    assert totals.pack().tolist() == pytest.approx([loss * clips, clips, 0, 0, 0, 0, 0, 0], rel=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(gradients[name], gradient, rtol=1e-4, atol=1e-6), name
    assert norm.item() == pytest.approx(torch.cat([g.flatten() for g in expected.values()]).norm().item(), rel=1e-4)


def first_rows():
    return tiny.recipe_of().plan.micro_batches(Cursor(), worker=0, num_workers=1)


@pytest.mark.parametrize("places", [(0,), (0, 2), (0, 1), (2, 3, 5)])
def test_the_gradient_is_the_mean_over_the_videos_that_are_there(places):
    config = tiny.without_randomness()
    rows = [row for plan in itertools.islice(first_rows(), 3) for row in plan.rows.tolist()]
    broken = {rows[place] for place in places}
    gradients, totals, _ = gradients_of_one_step(config, broken=broken)
    expected, loss, clips = gradients_of_one_big_mean(config, broken=broken)
    assert clips == tiny.REPEATS * (6 - len(broken))
    assert totals.pack().tolist() == pytest.approx([loss * clips, clips, len(broken), 0, 0, 0, 0, 0], rel=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(gradients[name], gradient, rtol=1e-4, atol=1e-6), name


def test_a_micro_batch_of_broken_videos_leaves_the_statistics_alone():
    recipe = tiny.recipe_of(max_steps=1)
    plans = list(itertools.islice(first_rows(), 3))
    broken = set(plans[1].rows.tolist())
    state, _ = tiny.train(recipe, broken=broken)
    fresh = tiny.new_state(tiny.CONFIG, tiny.CPU)
    norm = fresh.model.patch_embed1.norm1
    sums, weight = torch.zeros_like(norm.running_mean), 0
    for plan in (plans[0], plans[2]):
        batch = tiny.micro_batch_of(plan)
        # Mixing is part of what the network sees; its draws belong to the micro-batch.
        clips, _ = mixed_clips(batch, recipe)
        sums += len(clips) * fresh.model.patch_embed1.proj1(clips).mean(dim=(0, 2, 3, 4)).detach()
        weight += len(clips)
    assert torch.allclose(state.model.patch_embed1.norm1.running_mean, 0.1 * sums / weight, atol=1e-6)


def mixed_clips(batch, recipe):
    from morphmlp.data.stream.plan import random_generator

    key = (recipe.plan.seed, batch.plan.epoch, batch.plan.step, batch.plan.index, "mixing")
    return recipe.task.mix(normalise(batch.clips), recipe.task.targets(batch.labels), random_generator(*key))


def test_a_step_without_a_single_good_video_is_harmless():
    recipe = tiny.recipe_of(max_steps=2)
    broken = {row for plan in itertools.islice(first_rows(), 3) for row in plan.rows.tolist()}
    state, (first, *_) = tiny.train(recipe, broken=broken)
    assert first.totals.pack().tolist() == [0.0, 0.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert first.grad_norm == 0.0
    assert {video.video_id for video in first.broken} == {f"v{row}" for row in broken}
    assert all(torch.isfinite(value).all() for value in state.model.state_dict().values())


def test_gradients_are_clipped_to_the_recipes_norm():
    config = replace(tiny.CONFIG, optim=replace(tiny.CONFIG.optim, clip_norm=0.01))
    state, summaries = tiny.train(tiny.recipe_of(config, max_steps=1), config=config)
    assert summaries[0].grad_norm > 0.01
    clipped = torch.cat([p.grad.flatten() for p in state.model.parameters()]).norm().item()
    assert clipped == pytest.approx(0.01, rel=1e-3)


def test_summaries_tell_steps_epochs_and_learning_rates_in_order():
    recipe = tiny.recipe_of(epochs=2)
    _, summaries = tiny.train(recipe)
    kinds = [type(summary) for summary in summaries]
    assert kinds == [StepSummary, StepSummary, RoundSummary] * 2
    steps = [summary for summary in summaries if isinstance(summary, StepSummary)]
    assert [(summary.step, summary.epoch) for summary in steps] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert [summary.lr for summary in steps] == [
        learning_rate(epoch, whole=2, optim=recipe.optim) for epoch in (0.0, 0.5, 1.0, 1.5)
    ]
    ends = [summary for summary in summaries if isinstance(summary, RoundSummary)]
    assert [summary.step for summary in ends] == [2, 4]
    assert ends[0].totals == steps[0].totals + steps[1].totals


@pytest.mark.parametrize(("max_steps", "steps", "epochs"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (100, 6, 3), (None, 6, 3)])
def test_a_run_stops_after_max_steps_with_the_end_of_a_round(max_steps, steps, epochs):
    recipe = tiny.recipe_of(max_steps=max_steps)
    state, summaries = tiny.train(recipe)
    assert recipe.total_steps == steps
    assert sum(isinstance(summary, StepSummary) for summary in summaries) == steps
    assert isinstance(summaries[-1], RoundSummary)
    assert (recipe.length.at(steps), summaries[-1].step) == (epochs, steps)
    assert recipe.plan.step_of(state.cursor) == steps


def test_max_steps_leaves_the_schedule_as_it_is():
    _, short = tiny.train(tiny.recipe_of(max_steps=2))
    _, whole = tiny.train(tiny.recipe_of())
    assert [summary.lr for summary in short[:2]] == [summary.lr for summary in whole[:2]]


def test_a_finished_run_has_nothing_left_to_do():
    recipe = tiny.recipe_of(max_steps=2)
    state, _ = tiny.train(recipe)
    clips = tiny.ListClips(recipe.plan)
    assert list(fit(state, state.model, clips, recipe=recipe, device=tiny.CPU)) == []
    assert clips.asked == []


def test_the_loop_trains_in_training_mode_after_someone_evaluated_between_rounds():
    recipe = tiny.recipe_of()
    plain, _ = tiny.train(recipe)
    state = tiny.new_state(tiny.CONFIG, tiny.CPU)
    for summary in fit(state, state.model, tiny.ListClips(recipe.plan), recipe=recipe, device=tiny.CPU):
        if isinstance(summary, RoundSummary):
            state.model.eval()
    assert all(torch.equal(value, plain.model.state_dict()[name]) for name, value in state.model.state_dict().items())


def test_draws_of_other_code_do_not_change_the_training():
    recipe = tiny.recipe_of(max_steps=3)
    plain, _ = tiny.train(recipe)
    state = tiny.new_state(tiny.CONFIG, tiny.CPU)
    for number, _ in enumerate(fit(state, state.model, tiny.ListClips(recipe.plan), recipe=recipe, device=tiny.CPU)):
        torch.manual_seed(number)
        torch.rand(3)
    assert all(torch.equal(value, plain.model.state_dict()[name]) for name, value in state.model.state_dict().items())


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_run_that_was_stopped_and_resumed_ends_bit_identical(stop):
    recipe = tiny.recipe_of()
    whole, whole_summaries = tiny.train(recipe)
    state = tiny.new_state(tiny.CONFIG, tiny.CPU)
    before = []
    for summary in fit(state, state.model, tiny.ListClips(recipe.plan), recipe=recipe, device=tiny.CPU):
        if isinstance(summary, StepSummary):
            before.append(summary)
            if len(before) == stop:
                break
    content = snapshot(state, config=tiny.CONFIG, data_fingerprint=FINGERPRINT)

    torch.manual_seed(123)
    resumed = tiny.new_state(replace(tiny.CONFIG, train=replace(tiny.CONFIG.train, seed=9)), tiny.CPU)
    restore(resumed, checkpoint_from(content), config=tiny.CONFIG, data_fingerprint=FINGERPRINT)
    _, after = tiny.train(recipe, state=resumed)

    assert tiny.losses_of([*before, *after]) == tiny.losses_of(whole_summaries)
    assert resumed.cursor == whole.cursor
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_the_loss_curve_does_not_drift():
    recipe = tiny.recipe_of(epochs=10)
    _, summaries = tiny.train(recipe)
    losses = tiny.losses_of(summaries)
    assert losses == pytest.approx(json.loads(GOLDEN.read_text())["losses"], rel=1e-4)


def test_a_network_learns_what_can_be_learned():
    config = tiny.without_randomness()
    config = replace(config, optim=replace(config.optim, lr=5e-3, warmup_epochs=0.0))
    _, summaries = tiny.train(tiny.recipe_of(config, epochs=15), config=config)
    losses = tiny.losses_of(summaries)
    assert losses[0] > 1.2  # log 4 is 1.39
    assert sum(losses[-5:]) / 5 < 1.0


# Rows whose videos are broken: in some steps they make a whole micro-batch, in others one video of two.
BROKEN = {"every video is good": set(), "videos are broken": {0, 7}}


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """20 steps by two processes that share 3 micro-batches a step; what each of them saw, by case."""
    folder = tmp_path_factory.mktemp("workers")
    start_workers(tiny.train_as_worker, 2, str(folder), tiny.recipe_of(epochs=10), list(BROKEN.values()), count=2)
    return {
        case: [torch.load(folder / f"case{number}-worker{rank}.pt") for rank in range(2)]
        for number, case in enumerate(BROKEN)
    }


@pytest.fixture(scope="module", params=BROKEN)
def one_and_two_workers(request, two_workers):
    """The same steps by one process and by two."""
    broken = BROKEN[request.param]
    alone, summaries = tiny.train(tiny.recipe_of(epochs=10), broken=broken, prepare=tiny.hold_biases_before_batch_norm)
    return alone, summaries, two_workers[request.param], broken


def test_two_workers_follow_the_loss_curve_of_one(one_and_two_workers):
    _, summaries, two, _ = one_and_two_workers
    losses = tiny.losses_of(summaries)
    assert len(losses) == 20
    assert two[0]["losses"] == pytest.approx(losses, rel=1e-4)
    assert two[0]["losses"] == two[1]["losses"]


def test_two_workers_see_the_gradient_norms_of_one(one_and_two_workers):
    _, summaries, two, _ = one_and_two_workers
    norms = [summary.grad_norm.item() for summary in summaries if isinstance(summary, StepSummary)]
    assert two[0]["grad_norms"] == pytest.approx(norms, rel=1e-3)


def test_two_workers_keep_the_running_statistics_of_one(one_and_two_workers):
    alone, _, two, _ = one_and_two_workers
    running = [name for name, _ in alone.model.named_buffers()]
    assert len(running) == 6
    for name in running:
        assert torch.equal(two[0]["model"][name], two[1]["model"][name])
        assert torch.allclose(
            two[0]["model"][name].float(), alone.model.state_dict()[name].float(), rtol=1e-4, atol=1e-5
        )


def test_two_workers_end_with_the_same_weights(one_and_two_workers):
    alone, _, two, _ = one_and_two_workers
    for name, value in alone.model.state_dict().items():
        assert torch.equal(two[0]["model"][name], two[1]["model"][name]), name
        assert torch.allclose(two[0]["model"][name].float(), value.float(), rtol=1e-3, atol=1e-4), name


def test_two_workers_tell_every_broken_video_between_them(one_and_two_workers):
    _, summaries, two, broken = one_and_two_workers
    met = [video.video_id for s in summaries if isinstance(s, StepSummary) for video in s.broken]
    assert sorted([*two[0]["broken"], *two[1]["broken"]]) == sorted(met)
    assert set(met) == {f"v{row}" for row in broken}
    assert [totals[1:] for totals in two[0]["totals"]] == [s.totals.pack()[1:].tolist() for s in summaries]
