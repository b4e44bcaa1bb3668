"""Files of weights in all their forms; what needs code to be read isn't read."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch
from safetensors.torch import load_file, save_file

from morphmlp.config.loading import config_to_mapping
from morphmlp.errors import CheckpointError, ConfigError
from morphmlp.tasks.factory import task_of
from morphmlp.training.checkpoint.content import FORMAT
from morphmlp.training.weights.file import METADATA_KEY, read_weights, write_weights

MODEL = tiny.CONFIG.model
CFG = f"""
DATA: {{NUM_FRAMES: 2, TRAIN_CROP_SIZE: 32, MEAN: [0.45, 0.45, 0.45]}}
MODEL: {{NUM_CLASSES: {MODEL.num_classes}, ARCH: morph}}
MORPH:
  LAYERS: {list(MODEL.depths)}
  EMBED_DIMS: {list(MODEL.embed_dims)}
  SEGMENT_DIM: {list(MODEL.chunk_lengths)}
  MLP_RATIOS: [2, 2, 2, 2]
  DROP_DEPTH_RATE: 0.1
"""


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return task_of(tiny.CONFIG).network().state_dict()


def checkpoint(state, **changes):
    return {
        "format": FORMAT,
        "config": config_to_mapping(tiny.CONFIG),
        "model": state,
        "averaged": None,
        "optimizer": {"state": {}, "param_groups": []},
        **changes,
    }


def pyslowfast(state, **changes):
    trained = {"epoch": 59, "model_state": state, "optimizer_state": {"state": {}, "param_groups": []}, "cfg": CFG}
    return {**trained, "scaler_state": {"scale": 65536.0}, **changes}


def saved(content, folder, name="weights.pth", **options):
    torch.save(content, folder / name, **options)
    return folder / name


def refusal_of(path, **options):
    with pytest.raises(CheckpointError) as caught:
        read_weights(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["some.safetensors", "some.pth"])
def test_a_checkpoint_of_a_network_with_some_branches_is_read_and_written(name, tmp_path):
    config = replace(tiny.CONFIG, model=replace(MODEL, branches=("height", "channel")))
    state = task_of(config).network().state_dict()
    file = read_weights(saved(checkpoint(state, config=config_to_mapping(config)), tmp_path))
    write_weights(file, tmp_path / name, container="pyslowfast")
    written = read_weights(tmp_path / name)
    assert equal(written.state, state)
    assert written.description.branches == ("height", "channel")


@pytest.mark.parametrize(
    ("container", "content", "stated"),
    [
        ("bare", dict, False),
        ("pyslowfast", pyslowfast, True),
        ("pyslowfast", lambda state: pyslowfast(state, cfg=None), False),
        ("pyslowfast", lambda state: {"model_state": state, "epoch": 3, "scaler": None}, False),
        ("pyslowfast", lambda state: pyslowfast(state, cfg=CFG.replace("LAYERS", "DEPTHS")), False),
        ("pyslowfast", lambda state: pyslowfast(state, cfg="{not: [yaml"), False),
        ("checkpoint", checkpoint, True),
    ],
)
def test_every_form_of_saved_weights_is_read(container, content, stated, state, tmp_path):
    path = saved(content(state), tmp_path)
    file = read_weights(path)
    assert (file.container, file.averaged) == (container, False)
    assert equal(file.state, state)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.description.chunk_lengths == (MODEL.chunk_lengths if stated else None)
    assert file.description.num_frames == (2 if stated else None)
    if stated:
        assert (file.stated.num_frames, file.stated.crop_size) == (2, 32)
        assert replace(file.stated.model, init=MODEL.init) == MODEL


def test_the_older_format_of_torch_is_read(state, tmp_path):
    file = read_weights(saved(pyslowfast(state), tmp_path, _use_new_zipfile_serialization=False))
    assert equal(file.state, state)


def test_other_safetensors_are_read(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors", metadata={"format": "pt"})
    file = read_weights(tmp_path / "w.safetensors")
    assert (file.container, file.stated) == ("safetensors", None)
    assert equal(file.state, state)


def test_averaged_weights_are_taken_where_a_checkpoint_has_them(state, tmp_path):
    means = {"head.bias": state["head.bias"] + 1}
    path = saved(checkpoint(state, averaged=means), tmp_path)
    file = read_weights(path)
    assert file.averaged
    assert equal(file.state, {**state, **means})
    assert "(a checkpoint of this project, averaged): " in file.in_words
    file = read_weights(path, averaged=False)
    assert not file.averaged
    assert equal(file.state, state)


def test_weights_are_taken_raw_where_their_run_tests_them_raw(state, tmp_path):
    means = {"head.bias": state["head.bias"] + 1}
    content = checkpoint(state, averaged=means)
    path = saved({**content, "config": {**content["config"], "test": {"weights": "raw"}}}, tmp_path)
    assert equal(read_weights(path).state, state)
    assert equal(read_weights(path, averaged=True).state, {**state, **means})


@pytest.mark.parametrize("container", ["bare", "pyslowfast"])
@pytest.mark.parametrize("content", [dict, pyslowfast, checkpoint], ids=["bare", "pyslowfast", "checkpoint"])
def test_all_that_is_known_survives_the_way_through_safetensors_and_back(content, container, state, tmp_path):
    source = read_weights(saved(content(state), tmp_path))
    write_weights(source, tmp_path / "a" / "w.safetensors")
    ours = read_weights(tmp_path / "a" / "w.safetensors")
    assert (ours.stated, ours.description) == (source.stated, source.description)
    write_weights(ours, tmp_path / "again.pth", container=container)
    again = read_weights(tmp_path / "again.pth")
    assert again.container == container
    assert equal(again.state, state)
    assert {name: value.dtype for name, value in again.state.items()} == {name: v.dtype for name, v in state.items()}
    if container == "pyslowfast":
        assert again.description == source.description


def test_our_safetensors_say_what_they_are(state, tmp_path):
    source = read_weights(saved(checkpoint(state, averaged=state), tmp_path))
    write_weights(source, tmp_path / "w.safetensors")
    header = (tmp_path / "w.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    said = json.loads(json.loads(header[8 : 8 + length])["__metadata__"][METADATA_KEY])
    assert (said["format"], said["num_classes"], said["averaged"]) == ("morphmlp-weights-1", 4, True)
    assert (said["source_sha256"], said["model"]["depths"]) == (source.sha256, [1, 1, 1, 1])


def test_the_same_weights_give_the_same_bytes(state, tmp_path):
    source = read_weights(saved(checkpoint(state), tmp_path))
    for name in ("a.safetensors", "b.safetensors"):
        write_weights(source, tmp_path / name)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_can_be_read_by_whoever_can_read_other_files(name, state, tmp_path):
    source = saved(dict(state), tmp_path)
    write_weights(read_weights(source), tmp_path / name)
    assert (tmp_path / name).stat().st_mode == source.stat().st_mode


def test_views_and_strided_tensors_are_written_by_value(state, tmp_path):
    views = dict(state)
    views["head.weight"] = torch.cat([state["head.weight"], state["head.weight"]])[:4]
    views["blocks1.0.fc.proj.weight"] = state["blocks1.0.fc.proj.weight"].T.contiguous().T
    file = replace(read_weights(saved(dict(state), tmp_path)), state=views)
    write_weights(file, tmp_path / "w.safetensors")
    assert equal(load_file(tmp_path / "w.safetensors"), state)


def test_the_ablation_has_no_configuration_in_pyslowfast(tmp_path):
    config = replace(tiny.CONFIG, model=replace(MODEL, temporal="averaged"))
    state = task_of(config).network().state_dict()
    file = read_weights(saved(checkpoint(state, config=config_to_mapping(config)), tmp_path))
    write_weights(file, tmp_path / "w.pth", container="pyslowfast")
    assert torch.load(tmp_path / "w.pth", weights_only=True).keys() == {"model_state"}
    assert read_weights(tmp_path / "w.pth").description.kind == "video without temporal layers"


def test_a_place_that_cannot_be_written_is_named_and_nothing_stays(state, tmp_path):
    file = read_weights(saved(dict(state), tmp_path))
    (tmp_path / "taken.pth").mkdir()
    (tmp_path / "plain").touch()
    for path in (tmp_path / "taken.pth", tmp_path / "plain" / "w.pth", tmp_path / "w.bin"):
        with pytest.raises(ConfigError, match=re.escape(f"{path}: ")):
            write_weights(file, path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "taken.pth", "weights.pth"]


# What isn't read.


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("where", ["beside", "inside"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_not_run_and_the_way_out_is_told(where, zipped, state, tmp_path):
    trace = tmp_path / "trace"
    trap = Trap(trace)
    content = pyslowfast(state, cfg=trap) if where == "beside" else {**state, "extra": trap}
    path = saved(content, tmp_path, _use_new_zipfile_serialization=zipped)
    refusal = refusal_of(path)
    assert refusal.startswith("holds more than tensors and plain values (")
    assert "only running its code could read that; where it was made, torch.save(model.state_dict(), FILE)" in refusal
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the trap itself works


def test_the_kind_of_value_that_needs_code_is_named(state, tmp_path):
    refusal = refusal_of(saved(pyslowfast(state, epoch=np.float64(3)), tmp_path))
    assert "(numpy" in refusal
    assert "scalar)" in refusal


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_truncated_file_is_refused(name, share, state, tmp_path):
    write_weights(read_weights(saved(dict(state), tmp_path)), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert "truncated" in refusal_of(tmp_path / name)


def test_the_ending_does_not_matter(state, tmp_path):
    source = read_weights(saved(dict(state), tmp_path, name="w.safetensors"))
    write_weights(source, tmp_path / "ours.safetensors")
    ours = read_weights((tmp_path / "ours.safetensors").rename(tmp_path / "ours.pth"))
    assert (source.container, ours.container) == ("bare", "safetensors")
    assert equal(ours.state, state)


def prefixed(prefix):
    return lambda state: {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("content", "under"),
    [
        (prefixed("module."), "module"),
        (prefixed("_orig_mod."), "_orig_mod"),
        (prefixed("module.backbone."), "module.backbone"),
        (prefixed("model."), "model"),
        (lambda state: {"state_dict": state, "epoch": 3}, "state_dict"),
        (lambda state: {"state_dict": prefixed("backbone.")(state), "optimizer": {}}, "state_dict.backbone"),
        (lambda state: {"model": state, "step": torch.tensor(3)}, "model"),
        (lambda state: {"model": {"state_dict": prefixed("module.")(state)}}, "model.state_dict.module"),
        (lambda state: {"module": state, "dp_world_size": 1}, "module"),
        (lambda state: pyslowfast(prefixed("module.")(state)), "module"),
        (
            lambda state: {name if name.startswith("head.") else f"backbone.{name}": state[name] for name in state},
            "backbone",
        ),
    ],
)
def test_weights_are_found_where_other_programs_put_them(content, under, state, tmp_path):
    file = read_weights(saved(content(state), tmp_path))
    assert equal(file.state, state)
    assert f", under {under}): a MorphMLP of depths [1, 1, 1, 1]" in file.in_words
    write_weights(file, tmp_path / "again.pth")
    assert equal(read_weights(tmp_path / "again.pth").state, state)


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_which_of_several_networks_is_meant_must_be_said(form, state, tmp_path):
    several = {
        **prefixed("student.")(state),
        **{name: value + 0 for name, value in prefixed("teacher.")(state).items()},
    }
    if form == "pth":
        saved(several, tmp_path, name="w.pth")
    else:
        save_file(several, tmp_path / "w.safetensors")
    first = "patch_embed1.proj1.weight"
    assert refusal_of(tmp_path / f"w.{form}") == (
        f"holds several networks (student.{first}, teacher.{first}); save the tensors of one alone"
    )


def test_tensors_with_and_without_the_beginning_are_refused(state, tmp_path):
    content = {**prefixed("backbone.")(state), "head.bias": state["head.bias"]}
    refusal = refusal_of(saved(content, tmp_path))
    assert refusal == "holds tensors twice, with and without 'backbone.' (head.bias)"


def test_a_missing_file_is_named(tmp_path):
    assert refusal_of(tmp_path / "no.pth") == "can't be read: No such file or directory"
    assert refusal_of(tmp_path / "no.safetensors") == "can't be read: No such file or directory"


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (torch.zeros(3), "holds a Tensor, not weights by name"),
        ([], "holds a list, not weights by name"),
        ({}, "holds a dict, not weights by name"),
        ({"state_dict": {}, "epoch": 3}, "holds state_dict, epoch, in none of the known forms: weights by name, "),
        ({"head.weight": torch.zeros(2), "note": "x"}, "holds note among its weights, which aren't tensors"),
        ({"model_state": [1]}, "holds a list where weights by name belong"),
        ({"model_state": {"a": torch.zeros(1)}}, "isn't a MorphMLP: of 1 tensors none is patch_embed1.proj1.weight, "),
        ({"format": FORMAT, "model": {}}, "is not a complete checkpoint: it lacks its experiment"),
        ({"format": FORMAT, "config": {"clip": {}}, "model": {}}, "states its network in part only"),
    ],
)
def test_what_is_in_a_file_is_told_when_it_is_not_weights(content, refusal, tmp_path):
    assert refusal_of(saved(content, tmp_path)).startswith(refusal)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}', '{"format": "morphmlp-weights-1"}'])
def test_our_metadata_must_be_whole(text, state, tmp_path):
    save_file(state, tmp_path / "w.safetensors", metadata={METADATA_KEY: text})
    assert refusal_of(tmp_path / "w.safetensors") == "its metadata 'morphmlp' aren't of format 'morphmlp-weights-1'"


def test_a_checkpoint_whose_tensors_are_not_those_of_its_experiment_is_refused(state, tmp_path):
    other = config_to_mapping(replace(tiny.CONFIG, model=replace(MODEL, depths=(1, 1, 2, 1))))
    refusal = refusal_of(saved(checkpoint(state, config=other), tmp_path))
    assert refusal == ("its tensors contradict the network that it states: depths [1, 1, 1, 1] against [1, 1, 2, 1]")
