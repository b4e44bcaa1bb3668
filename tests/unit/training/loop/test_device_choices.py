"""What `auto` becomes on a worker, and what is set up on its network."""

import os
from itertools import combinations

import pytest
import tiny_training as tiny
import torch
import torch.distributed as dist
from tiny_training import CPU, SMALL
from torch._inductor.runtime.cache_dir_utils import cache_dir

from morphmlp.config import load_config
from morphmlp.errors import ConfigError
from morphmlp.models.cost import ActivationBytes, StageBytes, activation_bytes
from morphmlp.tasks.factory import task_of
from morphmlp.training.loop import device_choices
from morphmlp.training.loop.device_choices import (
    ACTIVATION_MEMORY_SHARE,
    ALL_STAGES,
    agreed_precision,
    keep_compiled,
    prepare_network,
)


def config_with(**execution):
    return load_config(SMALL, {f"execution.{name}": value for name, value in execution.items()})


def activations():
    config = config_with()
    return activation_bytes(
        config.model,
        num_frames=config.clip.num_frames,
        crop_size=config.clip.crop_size,
        clips=config.train.micro_batch_size * config.augment.repeats,
        published=True,
    )


@pytest.fixture(scope="module")
def needed():
    return activations().total


def prepared(monkeypatch, *, fits, precision="fp32", **execution):
    """The recomputed stages and notes of a worker on which just so many bytes of activations fit."""
    monkeypatch.setattr(device_choices, "_memory_bytes", lambda *_: fits / ACTIVATION_MEMORY_SHARE)
    config = config_with(**execution)
    model = task_of(config).network()
    notes = prepare_network(config, model, CPU, precision, local_workers=1)
    return model.recomputed_stages, notes


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_named_precision_is_taken_as_it_is(precision):
    assert agreed_precision(precision, CPU) == precision


def test_auto_is_fp32_on_a_cpu():
    assert agreed_precision("auto", CPU) == "fp32"


@pytest.mark.parametrize(("here", "elsewhere", "agreed"), [(1, 1, "bf16"), (1, 0, "fp32"), (0, 1, "fp32")])
def test_one_worker_without_bf16_decides_for_all(here, elsewhere, agreed, monkeypatch):
    reductions = {dist.ReduceOp.MIN: torch.minimum, dist.ReduceOp.MAX: torch.maximum, dist.ReduceOp.SUM: torch.add}

    def reduce_with_the_other_worker(tensor, op=dist.ReduceOp.SUM):
        tensor.copy_(reductions[op](tensor, torch.tensor(elsewhere)))

    monkeypatch.setattr(device_choices, "_has_bf16", lambda device: bool(here))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", reduce_with_the_other_worker)
    assert agreed_precision("auto", CPU) == agreed


@pytest.mark.parametrize(("choice", "stages"), [("on", {1, 2, 3, 4}), ("off", set()), ([3, 1], {1, 3}), ([], set())])
def test_a_named_choice_is_taken_whatever_the_memory(choice, stages, monkeypatch):
    assert prepared(monkeypatch, fits=0, activation_checkpointing=choice) == (stages, [])


def test_auto_recomputes_nothing_where_a_micro_batch_fits(needed, monkeypatch):
    assert prepared(monkeypatch, fits=needed()) == (set(), [])


def test_auto_recomputes_as_few_stages_as_make_a_micro_batch_fit(needed, monkeypatch):
    for count in (1, 2, 3):
        least = min(needed(stages) for stages in combinations(ALL_STAGES, count))
        stages, (note,) = prepared(monkeypatch, fits=least)
        assert len(stages) == count
        assert needed(stages) == least
        assert ("stage " if count == 1 else "stages ") + ", ".join(map(str, sorted(stages))) in note
        assert "too much" not in note


def test_auto_recomputes_everything_and_warns_where_even_that_may_not_fit(needed, monkeypatch):
    stages, (note,) = prepared(monkeypatch, fits=needed(ALL_STAGES) // 2)
    assert stages == {1, 2, 3, 4}
    assert note.endswith("that may still be too much, a smaller train.micro_batch_size needs less")


def test_the_note_names_memory_before_and_after(monkeypatch):
    gib = 2**30
    stage = StageBytes(kept=3 * gib, inputs=gib // 2, blocks=5)
    found = ActivationBytes(outside=0, stages=(stage,) * 4)
    monkeypatch.setattr(device_choices, "activation_bytes", lambda *_, **__: found)
    _, notes = prepared(monkeypatch, fits=10 * gib)
    assert notes == [
        "activations of a micro-batch take about 12.0 GiB of a worker's 20.0 GiB: the blocks of stage 1 are recomputed "
        "in the backward pass, which leaves 10.0 GiB (execution.activation_checkpointing)"
    ]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bit_activations_count_less(precision, needed, monkeypatch):
    just_enough = needed(in_16_bit=True)
    assert 0.5 * needed() < just_enough < 0.7 * needed()
    assert prepared(monkeypatch, fits=just_enough, precision=precision)[0] == set()
    assert prepared(monkeypatch, fits=just_enough)[0] != set()


def test_workers_of_one_machine_share_its_memory():
    whole = device_choices._memory_bytes(CPU, 1)
    assert whole > 2**28
    assert device_choices._memory_bytes(CPU, 4) == whole // 4


def test_a_worker_on_cpus_takes_few_clips_at_once():
    config = config_with()
    model = task_of(config).network()
    assert model.most_map_bytes is None
    prepare_network(config, model, CPU, "fp32", local_workers=1)
    assert model.most_map_bytes


def test_blocks_are_compiled_where_that_is_asked_for():
    for choice, compiled in (("off", False), ("blocks", True)):
        config = config_with(compile=choice)
        model = task_of(config).network()
        notes = prepare_network(config, model, CPU, "fp32", local_workers=1)
        assert any("compiles" in note for note in notes) == compiled
        assert all((block._compiled_call_impl is not None) == compiled for block in model.blocks2)


def test_blocks_run_in_fused_kernels_where_that_is_asked_for_and_can_be(monkeypatch):
    config = config_with(kernels="triton")
    model = task_of(config).network()
    notes = prepare_network(config, model, CPU, "fp32", local_workers=1)
    assert any("kernels in Triton" in note for note in notes)
    assert "forward" in vars(model.blocks2[0])
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ConfigError, match="triton needs GPUs"):
        prepare_network(config, task_of(config).network(), CPU, "fp32", local_workers=1)


@pytest.fixture
def storage(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    return tmp_path / "runs"


def test_compiled_blocks_are_kept_next_to_the_runs(storage):
    config = load_config(SMALL, {"execution.compile": "blocks", "cluster.storage": str(storage)})
    assert keep_compiled(config) == [f"compiled blocks are kept for later runs in {storage / '.compiled'}"]
    assert (storage / ".compiled").is_dir()
    assert cache_dir() == str(storage / ".compiled")  # torch's own word for it


def test_a_users_own_folder_of_compiled_blocks_stays_and_none_is_made_in_vain(storage, monkeypatch):
    assert keep_compiled(load_config(SMALL, {"cluster.storage": str(storage)})) == []
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    assert keep_compiled(load_config(SMALL, {"execution.compile": "blocks", "cluster.storage": str(storage)})) == []
    assert not storage.exists()


def test_storage_that_takes_no_compiled_blocks_is_named_and_training_continues(storage):
    storage.write_text("a file")
    config = load_config(SMALL, {"execution.compile": "blocks", "cluster.storage": str(storage)})
    [note] = keep_compiled(config)
    assert note == f"compiled blocks aren't kept for later runs: {storage / '.compiled'}: not a directory"
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_a_missing_compiler_is_named_before_anything_is_compiled(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = config_with(compile="blocks")
    with pytest.raises(ConfigError, match=r"execution\.compile: .* there is no no-such-compiler; install one"):
        prepare_network(config, task_of(config).network(), CPU, "fp32", local_workers=1)


def test_frozen_parts_are_told_and_keep_no_activations(monkeypatch):
    config = load_config(SMALL, {"train.freeze": ["stem", "stage1", "stage2"]})
    model = tiny.new_state(config, CPU).model
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shape = {"num_frames": config.clip.num_frames, "crop_size": config.clip.crop_size, "clips": 4}
    frozen = activation_bytes(config.model, **shape, frozen=config.train.frozen_parts)
    assert [stage.kept for stage in frozen.stages[:2]] == [0, 0]
    assert 0 < frozen.total() < activation_bytes(config.model, **shape).total()
    monkeypatch.setattr(device_choices, "_memory_bytes", lambda *_: frozen.total() / ACTIVATION_MEMORY_SHARE)
    (note,) = prepare_network(config, model, CPU, "fp32", local_workers=1)
    assert note == f"train.freeze: {trained:,} of {sum(p.numel() for p in model.parameters()):,} parameters train"
