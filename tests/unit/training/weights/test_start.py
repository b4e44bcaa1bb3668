"""What `start_from` does to an experiment, from the file to the network."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from morphmlp.config.loading import changed_fields, config_from_mapping, config_to_mapping, fingerprint, with_overrides
from morphmlp.errors import ConfigError
from morphmlp.tasks.factory import task_of
from morphmlp.training.checkpoint.content import FORMAT
from morphmlp.training.weights.start import apply_start_weights, start, start_tag, with_checked_weights

NAMES = ("archery", "bowling", "crying", "dancing")
CONFIG = tiny.CONFIG


def starting_from(path, config=CONFIG, **options):
    fields = {f"start_from.{name}": value for name, value in {"weights": str(path), **options}.items()}
    return config_from_mapping(with_overrides(config_to_mapping(config), fields))


def network(config=CONFIG, *, seed=0):
    torch.manual_seed(seed)
    built = task_of(config).network().eval()
    for value in built.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 1.0)
    return built


@pytest.fixture
def weights(tmp_path):
    torch.save(network().state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.fixture
def class_order(tmp_path):
    (tmp_path / "order.txt").write_text("dancing\t0\ncrying\t2\narchery\t1\nBowling\t3\n")
    return tmp_path / "order.txt"


def faults_of(config, names=NAMES):
    with pytest.raises(ConfigError) as caught:
        with_checked_weights(config, names)
    with pytest.raises(ConfigError) as again:
        apply_start_weights(task_of(config).network(), config, names)
    assert again.value.faults == caught.value.faults
    return list(caught.value.faults)


def test_an_experiment_without_starting_weights_is_left_alone():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert with_checked_weights(CONFIG, NAMES) is CONFIG
    assert apply_start_weights(model, CONFIG, NAMES) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_takes_the_weights_and_the_user_is_told(weights):
    model, expected = network(seed=1), network().state_dict()
    lines = apply_start_weights(model, starting_from(weights), NAMES)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert lines[0].startswith(f"start_from: {weights} (bare weights): a MorphMLP of depths [1, 1, 1, 1]")
    assert lines[1] == f"start_from: {len(expected)} of {len(expected)} tensors are the file's"
    assert all(line.startswith("start_from: ") for line in lines)


def test_the_record_names_the_content_and_absolute_paths(weights, class_order, monkeypatch):
    monkeypatch.chdir(weights.parent)
    config = starting_from("w.pth", class_order="order.txt")
    checked = with_checked_weights(config, NAMES)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (weights, class_order)]
    assert [checked.start_from.sha256, checked.start_from.class_order_sha256] == digests
    assert [Path(checked.start_from.weights), Path(checked.start_from.class_order)] == [weights, class_order]
    assert replace(checked, start_from=config.start_from) == config
    assert with_checked_weights(checked, NAMES) == checked


def test_other_content_under_the_same_name_is_another_experiment(weights):
    config = starting_from(weights)
    before = with_checked_weights(config, NAMES)
    torch.save(network(seed=1).state_dict(), weights)
    after = with_checked_weights(config, NAMES)
    assert fingerprint(after) != fingerprint(before)
    (line,) = changed_fields(before, after)
    assert line.startswith("start_from.sha256: ")
    (fault,) = faults_of(before)
    assert fault == f"start_from.sha256: {weights} has {after.start_from.sha256}, not {before.start_from.sha256}"


def test_the_same_content_elsewhere_is_the_same_experiment(weights):
    before = with_checked_weights(starting_from(weights), NAMES)
    moved = with_checked_weights(starting_from(weights.rename(weights.with_name("moved.pth"))), NAMES)
    assert fingerprint(moved) == fingerprint(before)
    assert changed_fields(before, moved) == []


def test_a_head_in_another_order_is_brought_into_the_manifests(weights, class_order):
    one, other = network(), network(seed=1)
    lines = apply_start_weights(other, starting_from(weights, class_order=str(class_order)), NAMES)
    clips = torch.randn(2, 3, 2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(other(clips), one(clips)[:, [1, 3, 2, 0]])
    assert any("start_from.class_order" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("archery\t0\nbowling\t1\ncrying\t2\nyoga\t3\n", "lacks classes of the manifest: 'dancing'"),
        ("archery\t0\nbowling\t1\ncrying\t2\ndancing\t2\n", ":4: class id 2 belongs to 'crying' already"),
        ("archery\t0\nbowling\t1\ncrying\t2\nDancing\t3\ndancing\t4\n", "names classes twice: 'Dancing', 'dancing'"),
        ("archery\t0\nbowling\n", ":2: unreadable line 'bowling'; it must be `name<TAB>id`, as other lines are"),
    ],
)
def test_a_class_order_that_does_not_fit_is_refused(text, fault, weights, class_order):
    class_order.write_text(text)
    faults = faults_of(starting_from(weights, class_order=str(class_order)))
    assert all(line.startswith(f"start_from.class_order: {class_order}") for line in faults)
    assert any(fault in line for line in faults)


def test_a_class_order_that_is_not_the_recorded_one_is_refused(weights, class_order):
    config = with_checked_weights(starting_from(weights, class_order=str(class_order)), NAMES)
    class_order.write_text("dancing\t1\ncrying\t2\narchery\t0\nBowling\t3\n")
    (fault,) = faults_of(config)
    assert fault.startswith(f"start_from.class_order_sha256: {class_order} has ")


def test_a_missing_class_order_is_named(weights, tmp_path):
    (fault,) = faults_of(starting_from(weights, class_order=str(tmp_path / "no.txt")))
    assert fault == f"start_from.class_order: {tmp_path}/no.txt: can't be read: No such file or directory"


def test_weights_that_cannot_be_read_are_named_with_the_field(tmp_path):
    (fault,) = faults_of(starting_from(tmp_path / "no.pth"))
    assert fault == f"start_from.weights: {tmp_path}/no.pth: can't be read: No such file or directory"


def test_weights_of_another_network_are_refused_with_field_and_file(tmp_path):
    other = replace(CONFIG, model=replace(CONFIG.model, depths=(1, 2, 1, 1), num_classes=9))
    torch.save(network(other).state_dict(), tmp_path / "w.pth")
    networks, keys = faults_of(starting_from(tmp_path / "w.pth"))
    assert networks.startswith(f"start_from.weights: {tmp_path}/w.pth: it is a MorphMLP of depths [1, 2, 1, 1]")
    assert "depths [1, 2, 1, 1] against [1, 1, 1, 1]; classes 9 against 4" in networks
    assert keys.startswith(f"start_from.weights: {tmp_path}/w.pth: ")
    assert "unexpected (blocks2.1." in keys


def test_what_a_checkpoint_states_is_compared_as_well(tmp_path):
    other = replace(CONFIG, model=replace(CONFIG.model, chunk_lengths=(4, 4, 4, 1)))
    content = {"format": FORMAT, "config": config_to_mapping(other), "model": network().state_dict(), "averaged": None}
    torch.save(content, tmp_path / "checkpoint.pt")
    networks, *_ = faults_of(starting_from(tmp_path / "checkpoint.pt"))
    assert networks.endswith(f": chunk lengths [4, 4, 4, 1] against {list(CONFIG.model.chunk_lengths)}")


def test_image_weights_start_a_video_network_that_keeps_its_own_temporal_layers_and_head(tmp_path):
    image = replace(
        CONFIG,
        model=replace(CONFIG.model, temporal="none", num_classes=9),
        clip=replace(CONFIG.clip, num_frames=1),
    )
    torch.save(network(image).state_dict(), tmp_path / "image.pth")
    model = network(seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines = apply_start_weights(
        model, starting_from(tmp_path / "image.pth", inflate="repeat", replace_head=True), NAMES
    )
    kept = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    fresh = {name for name in before if ".t_fc." in name or ".t_norm1." in name or name.startswith("head.")}
    assert kept - {name for name in before if name.endswith("num_batches_tracked")} == fresh
    assert any("5 convolutions got a time axis (repeat)" in line for line in lines)
    assert any("fresh: 24 tensors of the temporal layers" in line for line in lines)
    assert any("fresh: the head (9 classes in the file, 4 here)" in line for line in lines)


@pytest.mark.parametrize(
    ("classes", "options", "channel_order", "remark"),
    [
        (400, {}, "rgb", "released Kinetics heads have a class order of their own"),
        (400, {"class_order": "order.txt"}, "rgb", None),
        (400, {"replace_head": True}, "rgb", None),
        (174, {}, "rgb", "released Something-Something weights expect BGR"),
        (174, {"reverse_channels": True}, "rgb", None),
        (174, {}, "bgr", None),
        (4, {}, "rgb", None),
    ],
)
def test_what_released_files_cannot_say_is_pointed_out(classes, options, channel_order, remark, tmp_path):
    names = [f"class {number}" for number in range(classes)]
    if "class_order" in options:
        (tmp_path / "order.txt").write_text("".join(f"{name}\t{row}\n" for row, name in enumerate(names)))
        options = {"class_order": str(tmp_path / "order.txt")}
    fields = {"model.num_classes": classes, "clip.channel_order": channel_order}
    config = config_from_mapping(with_overrides(config_to_mapping(CONFIG), fields))
    torch.save(network(config).state_dict(), tmp_path / "w.pth")
    lines = apply_start_weights(network(config), starting_from(tmp_path / "w.pth", config, **options), names)
    remarks = [line for line in lines if line.startswith("start_from: released ")]
    assert len(remarks) == (remark is not None)
    assert all(str(remark) in line for line in remarks)


@pytest.mark.parametrize("carry", [None, "fitting"])
def test_a_replaced_head_is_the_fresh_draw_though_the_classes_are_as_many(carry, weights):
    drawn, state = tiny.new_state(CONFIG, tiny.CPU).model.state_dict(), tiny.new_state(CONFIG, tiny.CPU)
    checkpoint = weights.with_name("checkpoint.pt")
    file = checkpoint_of(CONFIG, checkpoint)
    lines = start(state, starting_from(checkpoint, replace_head=True, carry=carry), NAMES, data_fingerprint="1:a")
    for name, found in state.model.state_dict().items():
        assert torch.equal(found, drawn[name] if name.startswith("head.") else file[name]), name
    assert any("fresh: " in line and "start_from.replace_head" in line for line in lines)


def test_moving_averages_begin_with_the_loaded_weights(weights):
    config = starting_from(weights, config=replace(CONFIG, train=replace(CONFIG.train, ema_decay=0.9)))
    state = tiny.new_state(config, tiny.CPU)
    start(state, config, NAMES, data_fingerprint="1:a")
    expected = network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in state.averaged.state_dict().items())


def test_the_record_tells_the_weights_and_what_was_done_to_them(weights, class_order):
    plain = with_checked_weights(starting_from(weights), NAMES).start_from
    changed = with_checked_weights(starting_from(weights, class_order=str(class_order), reverse_channels=True), NAMES)
    named = f"w.pth sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}"
    assert start_tag(plain) == named
    assert start_tag(changed.start_from) == f"{named} class_order reverse_channels"


def checkpoint_of(config, path):
    """A checkpoint that states its network, with weights that no fresh network has."""
    state = network(config, seed=5).state_dict()
    content = {"format": FORMAT, "config": config_to_mapping(config), "model": state, "averaged": None}
    torch.save(content, path)
    return state


def changed_model(**fields):
    return replace(CONFIG, model=replace(CONFIG.model, **fields))


@pytest.mark.parametrize(
    ("there", "fresh"),
    [
        (CONFIG, "nothing"),
        (changed_model(chunk_lengths=(4, 4, 4, 1)), r"blocks[12]\.0\.fc\.mlp_[hw]\."),
        (changed_model(num_classes=9), r"head\."),
        (changed_model(temporal="averaged"), r"blocks\d\.0\.(t_fc|t_norm1)\."),
    ],
    ids=["the same", "chunk lengths", "classes", "no temporal layers"],
)
def test_what_carries_over_is_the_files_and_everything_else_a_fresh_draw(there, fresh, tmp_path):
    file = checkpoint_of(there, tmp_path / "checkpoint.pt")
    drawn, state = tiny.new_state(CONFIG, tiny.CPU).model.state_dict(), tiny.new_state(CONFIG, tiny.CPU)
    lines = start(state, starting_from(tmp_path / "checkpoint.pt", carry="fitting"), NAMES, data_fingerprint="1:a")
    for name, found in state.model.state_dict().items():
        expected = drawn if re.match(fresh, name) else file
        assert torch.equal(found, expected[name]), name
    assert sum("tensors carry over" in line for line in lines) == 1
    assert any(line.startswith("start_from: fresh: ") for line in lines) is (there != CONFIG)


def test_a_deeper_network_begins_with_the_blocks_of_the_file(tmp_path):
    file = checkpoint_of(CONFIG, tmp_path / "checkpoint.pt")
    deeper = changed_model(depths=(1, 1, 3, 1))
    drawn, state = tiny.new_state(deeper, tiny.CPU).model.state_dict(), tiny.new_state(deeper, tiny.CPU)
    start(state, starting_from(tmp_path / "checkpoint.pt", deeper, carry="fitting"), NAMES, data_fingerprint="1:a")
    found = state.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in file.items())
    assert all(torch.equal(found[name], drawn[name]) for name in found.keys() - file.keys())


def test_everything_must_fit_unless_it_is_said_otherwise(tmp_path):
    checkpoint_of(changed_model(chunk_lengths=(4, 4, 4, 1)), tmp_path / "checkpoint.pt")
    networks, *_ = faults_of(starting_from(tmp_path / "checkpoint.pt"))
    assert "chunk lengths [4, 4, 4, 1] against" in networks
    assert with_checked_weights(starting_from(tmp_path / "checkpoint.pt", carry="fitting"), NAMES)


def test_the_record_tells_that_only_what_fits_was_taken(tmp_path):
    checkpoint_of(CONFIG, tmp_path / "checkpoint.pt")
    checked = with_checked_weights(starting_from(tmp_path / "checkpoint.pt", carry="fitting"), NAMES)
    assert start_tag(checked.start_from).endswith(" carry=fitting")
