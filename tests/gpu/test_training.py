"""Training steps on a GPU: no stall, no step that moves weights by numbers that aren't finite, no lost state."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import tiny_training as tiny
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from morphmlp.data.stream.batches import MicroBatch
from morphmlp.training.loop.device_choices import agreed_precision
from morphmlp.training.loop.loop import Stepper, StepSummary, fit
from morphmlp.training.loop.state import checkpoint_from, restore, snapshot
from morphmlp.training.loop.step_clock import StepClock
from morphmlp.training.loop.step_guard import StepGuard

pytestmark = pytest.mark.gpu

AVERAGED = replace(tiny.CONFIG, train=replace(tiny.CONFIG.train, ema_decay=0.9))


class Pinned(tiny.ListClips):
    """Clips where a GPU can fetch them by itself, as ingest lays them."""

    def train(self, cursor):
        for step in super().train(cursor):
            yield [replace(batch, clips=batch.clips.pin_memory(), labels=batch.labels.pin_memory()) for batch in step]


def content_of(state):
    return snapshot(state, config=AVERAGED, data_fingerprint="1:a")


def steps_of(state, network, gpu, *, max_steps=6, guard=None):
    recipe = tiny.recipe_of(AVERAGED, max_steps=max_steps, epochs=9)
    found = fit(state, network, Pinned(recipe.plan), recipe=recipe, device=gpu, guard=guard)
    return [summary for summary in found if isinstance(summary, StepSummary)]


def test_auto_is_bf16_where_the_gpu_has_it(gpu):
    assert agreed_precision("auto", gpu) == ("bf16" if torch.cuda.get_device_capability(gpu) >= (8, 0) else "fp32")


def test_losses_are_those_of_a_cpu(gpu, exact_arithmetic):
    config = tiny.without_randomness()
    recipe = tiny.recipe_of(config, max_steps=6)
    on_cpu = list(fit(*_alone(config, tiny.CPU), tiny.ListClips(recipe.plan), recipe=recipe, device=tiny.CPU))
    on_gpu = list(fit(*_alone(config, gpu), Pinned(recipe.plan), recipe=recipe, device=gpu))
    assert tiny.losses_of(on_gpu) == pytest.approx(tiny.losses_of(on_cpu), rel=1e-3)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_step_never_waits_for_the_gpu(gpu, precision):
    """Torch raises an error at every operation that makes the host wait; reading the step before is an event's wait."""
    state = tiny.new_state(AVERAGED, gpu, precision=precision)
    recipe = tiny.recipe_of(AVERAGED, max_steps=6)
    guard = StepGuard(loss_scaling=precision == "fp16")
    stepper = Stepper(state, state.model.train(), recipe=recipe, device=gpu, guard=guard)
    taken = 0
    for number, batches in enumerate(Pinned(recipe.plan).train(state.cursor)):
        if number:  # the first step makes what lasts
            torch.cuda.set_sync_debug_mode("error")
        try:
            stepper.take(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        taken += 1
    assert taken > 1


def test_a_step_whose_loss_is_not_a_number_moves_only_the_cursor(gpu):
    state = tiny.new_state(AVERAGED, gpu, precision="bf16")
    # Three micro-batches a step: the eighth forward pass is the second of the third step.
    tiny.Poison(state.model, {7})
    told, contents = [], [content_of(state)]
    recipe = tiny.recipe_of(AVERAGED, max_steps=6)
    guard = StepGuard(max_in_a_row=9, on_skipped=lambda skipped: told.append((skipped.step, content_of(state))))
    skipped = []
    for summary in fit(state, state.model, Pinned(recipe.plan), recipe=recipe, device=gpu, guard=guard):
        if isinstance(summary, StepSummary):
            contents.append(content_of(state))
            skipped.append(summary.totals.skipped.item())
    assert skipped == [0, 0, 1, 0, 0, 0]
    before, after = contents[2], contents[3]
    assert all(tiny.equal(before[part], after[part]) for part in ("model", "averaged", "scaler"))
    assert tiny.equal(before["optimizer"]["state"], after["optimizer"]["state"])
    assert not tiny.equal(contents[3]["model"], contents[4]["model"])
    ((step, met),) = told
    assert step == 2
    assert tiny.equal(met["model"], before["model"])


def test_with_fp16_steps_are_skipped_until_the_loss_scale_is_found(gpu):
    state = tiny.new_state(AVERAGED, gpu, precision="fp16")
    state.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    before = content_of(state)
    guard = StepGuard(loss_scaling=True)
    summaries = steps_of(state, state.model, gpu, guard=guard, max_steps=6)
    assert [summary.totals.skipped.item() for summary in summaries][:2] == [1, 1]
    assert state.scaler.get_scale() < 2.0**40
    assert not guard.gave_up
    assert tiny.equal(before["model"], content_of(state)["model"])
    state.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    assert [s.totals.skipped.item() for s in steps_of(state, state.model, gpu, guard=guard, max_steps=8)] == [0, 0]
    assert not tiny.equal(before["model"], content_of(state)["model"])


def test_a_checkpoint_goes_on_as_if_nothing_had_been(gpu):
    """And it is a copy, which training doesn't change any more."""
    whole = tiny.new_state(AVERAGED, gpu, precision="bf16")
    expected = tiny.losses_of(steps_of(whole, whole.model, gpu, max_steps=8))
    first = tiny.new_state(AVERAGED, gpu, precision="bf16")
    steps_of(first, first.model, gpu, max_steps=3)
    content = content_of(first)
    steps_of(first, first.model, gpu, max_steps=5)
    second = tiny.new_state(AVERAGED, gpu, precision="bf16")
    restore(second, checkpoint_from(content), config=AVERAGED, data_fingerprint="1:a")
    state = second.optimizer.state_dict()["state"]
    assert {value.device.type for moments in state.values() for value in moments.values()} == {"cuda"}
    found = tiny.losses_of(steps_of(second, second.model, gpu, max_steps=8))
    assert found == pytest.approx(expected[3:], rel=1e-4)


def test_data_parallelism_over_nccl_has_the_same_losses(gpu, tmp_path):
    alone = tiny.new_state(AVERAGED, gpu, precision="bf16")
    expected = steps_of(alone, alone.model, gpu)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1, device_id=gpu)
    try:
        state = tiny.new_state(AVERAGED, gpu, precision="bf16")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer torch has another name for broadcast_buffers
            network = DistributedDataParallel(state.model, broadcast_buffers=False, gradient_as_bucket_view=True)
        found = steps_of(state, network, gpu)
        times = [summary.times for summary in found]
        assert tiny.losses_of(found) == pytest.approx(tiny.losses_of(expected), rel=1e-4)
        assert all(one.all_reduce_s > 0 and one.compute_s > 0 for one in times)
    finally:
        dist.destroy_process_group()


def test_a_micro_batch_without_a_video_takes_part(gpu):
    state = tiny.new_state(AVERAGED, gpu, precision="bf16")
    recipe = tiny.recipe_of(AVERAGED, max_steps=1)
    (batches, *_) = Pinned(recipe.plan).train(state.cursor)
    first = batches[0]
    empty = MicroBatch(
        plan=first.plan, clips=first.clips[:0], labels=first.labels[:0], rows=np.empty(0, np.int64), broken=()
    )
    stepper = Stepper(state, state.model.train(), recipe=recipe, device=gpu, guard=StepGuard())
    summary = stepper.take([empty, *batches[1:]])
    assert summary.totals.pack().isfinite().all()
    assert summary.totals.skipped == 0


def test_a_gpu_is_timed_by_its_own_stream(gpu):
    clock = StepClock(gpu)
    matrix = torch.ones(4096, 4096, device=gpu)
    for _ in range(2):
        clock.begin(0.0)
        for _ in range(200):
            matrix = matrix @ matrix * 1e-4
        clock.handed_over()
        torch.cuda._sleep(20_000_000)
        clock.reduced()
        times = clock.end()
    assert times.compute_s > times.step_s  # the host was done long before the device
    assert 0 < times.all_reduce_s < times.compute_s


def test_waiting_that_a_busy_gpu_does_not_notice_is_not_counted(gpu):
    clock = StepClock(gpu)
    clock.begin(0.0)
    torch.cuda._sleep(100_000_000)
    clock.end()
    clock.begin(3600.0)  # the host says that it waited for an hour; the device was busy the whole time
    assert clock.end().wait_s < 1


def _alone(config, device):
    state = tiny.new_state(config, device)
    return state, state.model
