"""Weights for networks that segment: from classifiers of images, from a ResNet's file, from other decoders."""

from dataclasses import replace

import pytest
import torch
import torchvision
from tiny_network import TINY
from tiny_segmentation import CROP, DECODERS, FPN, MODEL, RESNET, UPERNET

from morphmlp.config.start import StartConfig
from morphmlp.errors import CheckpointError, ConfigError
from morphmlp.models.build import build_network
from morphmlp.models.parts import part_of
from morphmlp.models.presets import Preset
from morphmlp.models.weights.deduce import describe_tensors
from morphmlp.models.weights.describe import describe_model, differences, expected_state, without_prefix
from morphmlp.models.weights.fit import fit_weights

SIZES = {"num_frames": 1, "crop_size": CROP}
CLASSIFIER = replace(MODEL, num_classes=7)


def state_of(model=MODEL, segmentation=None):
    torch.manual_seed(3)
    return build_network(model, **SIZES, segmentation=segmentation).state_dict()


def fitted(state, model=MODEL, segmentation=FPN, *, stated=None, head_rows=None, crop=CROP, **options):
    sizes = {"num_frames": 1, "crop_size": crop, "segmentation": segmentation}
    return fit_weights(
        state,
        expected_state(model, **sizes),
        file=describe_tensors(state, stated),
        asked=describe_model(model, **sizes),
        start=StartConfig(weights="w.pth", **options),
        head_rows=head_rows,
    )


def refused(*arguments, **options):
    with pytest.raises(ConfigError) as error:
        fitted(*arguments, **options)
    return "\n".join(error.value.faults)


@pytest.mark.parametrize("options", [{}, {"replace_head": True}, {"carry": "fitting"}])
@pytest.mark.parametrize("segmentation", DECODERS.values(), ids=DECODERS)
def test_image_weights_give_the_backbone_and_norms_and_decoder_start_fresh(segmentation, options):
    state = state_of(CLASSIFIER)
    stated = Preset(model=CLASSIFIER, num_frames=1, crop_size=CROP)
    result = fitted(state, segmentation=segmentation, stated=stated, **options)
    backbone = {name for name in state if name.startswith(("patch_embed", "blocks"))}
    assert result.state.keys() == backbone
    assert all(torch.equal(result.state[name], state[name]) for name in backbone)
    network = build_network(MODEL, **SIZES, segmentation=segmentation)
    assert not network.load_state_dict(result.state, strict=False).unexpected_keys
    missing = network.state_dict().keys() - result.state.keys()
    assert {name.partition(".")[0] for name in missing} == {"norms", "decoder"}
    if "carry" in options:
        assert f"fresh: {len(missing)} tensors of the head (the file is a classifier's)" in result.notes
        assert "left behind: 4 tensors that the network has no place for (norm, head)" in result.notes
    else:
        auxiliary = " with an auxiliary head" if segmentation == UPERNET else ""
        assert (
            f"fresh: the norms of the maps and the decoder, {len(missing)} tensors (a classifier, whose head is left "
            f"in the file, {segmentation.decoder} of 8 channels{auxiliary} here)"
        ) in result.notes


def test_weights_of_one_decoder_are_taken_whole_by_the_same():
    state = state_of(segmentation=UPERNET)
    result = fitted(state, segmentation=UPERNET)
    assert result.state.keys() == state.keys()
    assert result.notes == (
        f"{len(state)} of {len(state)} tensors are the file's",
        "the head's rows are taken to be in the manifest's order",
        "chunk lengths aren't in the file: taken to be the experiment's [8, 8, 4, 4]",
    )


ROWS = {f"decoder.{layer}.conv.{kind}" for layer in ("classifier", "auxiliary.1") for kind in ("weight", "bias")}


@pytest.mark.parametrize("carry", [None, "fitting"])
def test_for_other_classes_only_what_has_a_row_for_each_starts_fresh(carry):
    there = replace(MODEL, num_classes=9)
    state = state_of(there, UPERNET)
    if carry is None:
        fault = "classes 9 against 5, start_from.replace_head: true starts with a fresh head"
        assert fault in refused(state, segmentation=UPERNET)
    stated = Preset(model=there, num_frames=1, crop_size=CROP)
    result = fitted(state, segmentation=UPERNET, stated=stated, replace_head=True, carry=carry)
    assert state.keys() - result.state.keys() == ROWS


def test_the_rows_of_a_decoder_can_be_brought_into_another_order():
    state, rows = state_of(segmentation=UPERNET), [4, 3, 2, 1, 0]
    result = fitted(state, segmentation=UPERNET, head_rows=rows, class_order="c.txt")
    for name, value in state.items():
        assert torch.equal(result.state[name], value[rows] if name in ROWS else value)
    fault = "start_from.class_order names rows of a head that a new decoder doesn't take; leave it out"
    assert fault in refused(state_of(CLASSIFIER), head_rows=list(range(7)), class_order="c.txt")


def test_another_decoder_is_refused_or_starts_fresh_by_name():
    state = state_of(segmentation=UPERNET)
    assert (
        "decoder upernet of 8 channels with an auxiliary head against semantic_fpn of 8 channels, "
        "start_from.replace_head: true starts with a fresh decoder"
    ) in refused(state)
    result = fitted(state, replace_head=True)
    assert {part_of(name) for name in result.state} == {"stem", "stage1", "stage2", "stage3", "stage4"}
    assert "decoder semantic_fpn of 8 channels against semantic_fpn of 16 channels" in refused(
        state_of(segmentation=FPN), segmentation=replace(FPN, decoder_channels=16)
    )


def test_a_classifier_takes_the_backbone_of_a_network_that_segments_where_carrying_is_asked_for():
    state = state_of(segmentation=FPN)
    words = "against a classifier, which start_from.carry: fitting makes of its backbone"
    assert words in refused(state, segmentation=None)
    assert words in refused(state, segmentation=None, replace_head=True)
    stated = Preset(model=MODEL, num_frames=1, crop_size=CROP)
    result = fitted(state, segmentation=None, stated=stated, carry="fitting")
    assert result.state.keys() == {name for name in state if name.startswith(("patch_embed", "blocks"))}


def test_weights_made_at_one_crop_fit_another_where_its_chunks_are_named():
    stated = Preset(model=CLASSIFIER, num_frames=1, crop_size=CROP)
    state = state_of(CLASSIFIER)
    larger = 2 * CROP
    assert (
        "shapes of chunks [1x8, 1x8, 1x4, 2x2] against [1x8, 1x8, 1x4, 4x1] (model.chunk_crop_size names the crop "
        "that has the file's)"
    ) in refused(state, crop=larger, stated=stated)
    result = fitted(state, replace(MODEL, chunk_crop_size=CROP), crop=larger, stated=stated)
    assert len(result.state) == len(
        [name for name in state if part_of(name) != "head" and not name.startswith("norm.")]
    )


def test_video_weights_do_not_fit():
    video = replace(TINY, num_classes=7)
    state = build_network(video, num_frames=8, crop_size=CROP).state_dict()
    assert "its convolutions have a time axis, an image network's have none" in refused(state)


@pytest.fixture(scope="module")
def imagenet():
    torch.manual_seed(4)
    return torchvision.models.resnet50(weights=None).state_dict()


def test_a_file_of_torchvisions_resnet_gives_its_backbone(imagenet):
    assert describe_tensors(imagenet).in_words == "ResNet-50 (image), 1000 classes"
    result = fitted(imagenet, segmentation=RESNET)
    assert result.state.keys() == imagenet.keys() - {"fc.weight", "fc.bias"}
    network = build_network(MODEL, **SIZES, segmentation=RESNET)
    network.load_state_dict(result.state, strict=False)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in result.state.items())
    fresh = len(network.state_dict()) - len(result.state)
    assert (
        f"fresh: the decoder, {fresh} tensors (a classifier, whose head is left in the file, semantic_fpn of 8 "
        "channels here)"
    ) in result.notes
    carried = fitted(imagenet, segmentation=RESNET, carry="fitting", reverse_channels=True)
    assert carried.state.keys() == result.state.keys()
    assert torch.equal(carried.state["conv1.weight"], imagenet["conv1.weight"].flip(1))


def test_old_files_of_a_resnet_have_no_counters_and_wrappers_put_words_before_names(imagenet):
    old = {f"module.{name}": value for name, value in imagenet.items() if "num_batches_tracked" not in name}
    prefix, state = without_prefix(old)
    assert prefix == "module"
    assert fitted(state, segmentation=RESNET).state.keys() == state.keys() - {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("carry", [None, "fitting"])
def test_one_backbone_does_not_fit_the_other(imagenet, carry):
    words = "nothing of it carries over" if carry else "backbone ResNet-50 against MorphMLP (segmentation.backbone)"
    assert words in refused(imagenet, carry=carry)
    words = "nothing of it carries over" if carry else "backbone MorphMLP against ResNet-50 (segmentation.backbone)"
    assert words in refused(state_of(CLASSIFIER), segmentation=RESNET, carry=carry)


def test_other_resnets_are_refused_by_what_differs():
    smaller = torchvision.models.resnet34(weights=None).state_dict()
    with pytest.raises(CheckpointError, match=r"its tensors aren't exactly those of ResNet-50: .* missing"):
        describe_tensors(smaller)
    deeper = torchvision.models.resnet101(weights=None).state_dict()
    with pytest.raises(CheckpointError, match=r"aren't exactly those of ResNet-50: .* unexpected \(layer3\.6\.conv1"):
        describe_tensors(deeper)


@pytest.mark.parametrize("segmentation", [FPN, UPERNET, RESNET], ids=["fpn", "upernet", "resnet"])
def test_a_network_that_segments_is_found_from_its_tensors(segmentation):
    found = describe_tensors(state_of(segmentation=segmentation))
    asked = describe_model(MODEL, **SIZES, segmentation=segmentation)
    assert (found.backbone, found.decoder, found.num_classes) == (asked.backbone, asked.decoder, asked.num_classes)
    assert differences(found, asked) == []
    damaged = state_of(segmentation=segmentation)
    del damaged["decoder.classifier.conv.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing \(decoder\.classifier\.conv\.bias\)"):
        describe_tensors(damaged)
