"""A step that isn't finite changes nothing but the cursor; averages and arithmetic change what they should."""

from dataclasses import replace

import pytest
import tiny_training as tiny
import torch

from morphmlp.training.loop.loop import StepSummary, fit
from morphmlp.training.loop.state import checkpoint_from, restore, snapshot
from morphmlp.training.loop.step_guard import StepGuard, StepNumbers

AVERAGED = replace(tiny.CONFIG, train=replace(tiny.CONFIG.train, ema_decay=0.9))


def content_of(state):
    return snapshot(state, config=AVERAGED, data_fingerprint="1:a")


def run(state, *, passes, steps=6, **guard):
    """Train with a poisoned network; the state's content after each step, and the summaries."""
    recipe = tiny.recipe_of(AVERAGED, max_steps=steps)
    tiny.Poison(state.model, passes)
    contents, summaries = [content_of(state)], []
    for summary in fit(
        state,
        state.model,
        tiny.ListClips(recipe.plan),
        recipe=recipe,
        device=tiny.CPU,
        guard=StepGuard(max_in_a_row=9, **guard),
    ):
        if isinstance(summary, StepSummary):
            contents.append(content_of(state))
            summaries.append(summary)
    return contents, summaries


def test_a_step_whose_loss_is_not_a_number_moves_only_the_cursor():
    # Three micro-batches a step: the eighth forward pass is the second of the third step.
    contents, summaries = run(tiny.new_state(AVERAGED, tiny.CPU), passes={7})
    before, after = contents[2], contents[3]
    for part in ("model", "averaged", "scaler"):
        assert tiny.equal(before[part], after[part]), part
    assert tiny.equal(before["optimizer"]["state"], after["optimizer"]["state"])
    assert (after["epoch"], after["step"]) == (1, 1)
    assert [summary.totals.skipped.item() for summary in summaries] == [0, 0, 1, 0, 0, 0]
    assert (summaries[2].totals.loss_sum, summaries[2].totals.clips) == (0, 0)
    for earlier, later in ((contents[1], contents[2]), (contents[3], contents[4])):
        assert not tiny.equal(earlier["model"], later["model"])
        assert not tiny.equal(earlier["averaged"], later["averaged"])
    assert all(torch.isfinite(value).all() for value in contents[-1]["model"].values())


@pytest.mark.parametrize("late", [False, True], ids=["at once", "one step behind, as on a GPU"])
def test_a_skipped_step_is_told_while_the_state_is_as_it_met_it(late, monkeypatch):
    if late:
        monkeypatch.setattr(StepNumbers, "at_once", False)
    state, met = tiny.new_state(AVERAGED, tiny.CPU), []
    contents, _ = run(state, passes={7, 12}, on_skipped=lambda skipped: met.append((skipped.step, content_of(state))))
    assert [step for step, _ in met] == [2, 4]
    for step, content in met:
        assert tiny.equal(content["model"], contents[step]["model"])
        assert tiny.equal(content["optimizer"]["state"], contents[step]["optimizer"]["state"])


def test_an_average_follows_the_weights_and_never_leads_them():
    contents, _ = run(tiny.new_state(AVERAGED, tiny.CPU), passes=())
    plain, _ = tiny.train(tiny.recipe_of(max_steps=6))
    assert tiny.equal(contents[-1]["model"], dict(plain.model.state_dict()))
    expected = contents[0]["model"]["head.weight"]
    for content in contents[1:]:
        expected = 0.9 * expected + 0.1 * content["model"]["head.weight"]
    assert torch.allclose(contents[-1]["averaged"]["head.weight"], expected, atol=1e-7)


def test_the_tested_weights_are_the_averaged_ones_with_the_models_statistics():
    contents, _ = run(tiny.new_state(AVERAGED, tiny.CPU), passes=())
    checkpoint = checkpoint_from(contents[-1])
    tested = checkpoint.weights
    assert tested.keys() == checkpoint.model.keys()
    assert torch.equal(tested["head.weight"], checkpoint.averaged["head.weight"])
    norm = "patch_embed1.norm1.running_mean"
    assert torch.equal(tested[norm], checkpoint.model[norm])


def losses_with(precision):
    state = tiny.new_state(tiny.CONFIG, tiny.CPU, precision=precision)
    _, summaries = tiny.train(tiny.recipe_of(max_steps=6), state=state)
    return state, tiny.losses_of(summaries), [s for s in summaries if isinstance(s, StepSummary)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_changes_roundings_and_nothing_else(precision):
    _, exact, _ = losses_with("fp32")
    state, losses, summaries = losses_with(precision)
    assert losses != exact
    assert losses == pytest.approx(exact, rel=0.02)
    assert not any(summary.totals.skipped for summary in summaries)
    assert {value.dtype for value in state.model.parameters()} == {torch.float32}
    assert {moment.dtype for moment in state.optimizer.state[state.model.head.weight].values()} == {torch.float32}


def test_the_scale_of_the_loss_leaves_the_gradient_as_it_is():
    _, exact, plain = losses_with("bf16")
    del exact
    _, _, scaled = losses_with("fp16")
    assert scaled[0].grad_norm.item() == pytest.approx(plain[0].grad_norm.item(), rel=0.02)


def test_a_gradient_that_overflows_halves_the_scale_and_is_made_good_by_the_next_step():
    state = tiny.new_state(AVERAGED, tiny.CPU, precision="fp16")
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0**40})
    told = []
    contents, summaries = run(state, passes=(), steps=6, loss_scaling=True, on_skipped=told.append)
    assert summaries[0].totals.skipped == 1
    assert contents[1]["scaler"]["scale"] == 2.0**39
    assert tiny.equal(contents[0]["model"], contents[1]["model"])
    assert told == []


def test_the_scale_of_the_loss_continues_from_a_checkpoint():
    state = tiny.new_state(AVERAGED, tiny.CPU, precision="fp16")
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 512.0})
    again = tiny.new_state(AVERAGED, tiny.CPU, precision="fp16")
    restore(again, checkpoint_from(content_of(state)), config=AVERAGED, data_fingerprint="1:a")
    assert again.scaler.get_scale() == 512.0
    assert again.averaged is not None
