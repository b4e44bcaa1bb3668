"""Networks by name with weights of files, by torch.hub, and in the Hub's form of a folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_here import hub_here

import morphmlp
from morphmlp.config import load_config
from morphmlp.errors import CheckpointError, ConfigError
from morphmlp.models import presets
from morphmlp.models.presets import Preset
from morphmlp.pretrained.hub import hub_model, hub_segmentation

ROOT = Path(__file__).parents[3]
TINY, TINY_IMAGE = "morphmlp_tiny_4x1", "morphmlp_tiny_image"
MODEL = replace(
    presets.preset("morphmlp_s_16x4").model,
    depths=(1, 1, 1, 1),
    embed_dims=(16, 16, 32, 32),
    chunk_lengths=(8, 8, 4, 1),
    num_classes=4,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Two variants more, as small as can be."""
    more = {
        TINY: Preset(model=MODEL, num_frames=4, crop_size=32),
        TINY_IMAGE: Preset(model=replace(MODEL, temporal="none"), num_frames=1, crop_size=32),
    }
    monkeypatch.setattr(presets, "PRESETS", {**presets.PRESETS, **more})


@pytest.fixture
def saved(tmp_path):
    """Saves the weights of a variant, none of them at its initial value."""

    def save(name, **options):
        network = morphmlp.create_model(name, **options)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        torch.save(network.state_dict(), tmp_path / f"{name}.pth")
        return network.eval(), tmp_path / f"{name}.pth"

    return save


CLIPS = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_file_gives_its_weights_and_the_number_of_its_classes(saved):
    network, file = saved(TINY, num_classes=7)
    again = morphmlp.create_model(TINY, pretrained_weights=file).eval()
    assert torch.equal(again(CLIPS), network(CLIPS))
    assert again(CLIPS).shape == (2, 7)


def test_another_number_of_classes_gives_a_fresh_head_on_the_files_backbone(saved):
    network, file = saved(TINY)
    other = morphmlp.create_model(TINY, num_classes=9, pretrained_weights=file, drop_path_rate=0.0).eval()
    assert other(CLIPS).shape == (2, 9)
    assert all(map(torch.equal, other.forward_features(CLIPS), network.forward_features(CLIPS)))


def test_features_are_the_four_maps_of_the_weights(saved):
    network, file = saved(TINY)
    features = morphmlp.create_model(TINY, features_only=True, pretrained_weights=file).eval()
    maps = features(CLIPS)
    assert all(map(torch.equal, maps, network.forward_features(CLIPS)))
    assert tuple(each.shape[1] for each in maps) == features.channels
    assert tuple(32 // each.shape[-1] for each in maps) == features.reductions
    assert not any(name.startswith(("head", "norm.")) for name in features.state_dict())


def test_weights_of_images_start_a_video_network_where_that_is_asked_for(saved):
    network, file = saved(TINY_IMAGE)
    with pytest.raises(ConfigError, match=r"its convolutions have no time axis, inflate .repeat or centre. gives them"):
        morphmlp.create_model(TINY, pretrained_weights=file)
    video = morphmlp.create_model(TINY, pretrained_weights=file, inflate="centre").eval()
    still = CLIPS[:, :, :1].expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(video(still), network(CLIPS[:, :, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("morphmlp_xl", {}, ConfigError, "model name: 'morphmlp_xl' is unknown; use one of morphmlp_s_16x4, "),
        (TINY, {"pretrained_weights": "no.pth"}, CheckpointError, "no.pth: can't be read: No such file"),
        (TINY, {"inflate": "repeat"}, ConfigError, "inflate: repeat: there are no weights"),
        (TINY, {"crop_size": 40}, ConfigError, "model.chunk_lengths: stage"),
        ("morphmlp_s_16x4", {"pretrained_weights": f"{TINY}.pth"}, ConfigError, f"{TINY}.pth: it is "),
        (TINY_IMAGE, {"pretrained_weights": f"{TINY}.pth"}, ConfigError, "its convolutions have a time axis"),
    ],
)
def test_what_does_not_fit_is_one_line(name, options, error, said, *, saved, monkeypatch, tmp_path):
    saved(TINY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        morphmlp.create_model(name, **options)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value) or "crop_size" in options


def test_torch_hub_builds_by_name_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with torch.device("meta"):
        network = torch.hub.load(str(ROOT), "morphmlp_s_16x4", source="local", num_classes=5)
        images = torch.hub.load(str(ROOT), "create_model", "morphmlp_t_image", source="local", features_only=True)
    assert network.head.out_features == 5
    assert images.channels == (84, 168, 336, 588)


def test_a_folder_in_the_hubs_form_gives_the_same_network(saved, tmp_path):
    network, _ = saved(TINY)
    names = ["walk", "run", "jump", "sit"]
    morphmlp.HubMorphMLP.of(network, class_names=names).save_pretrained(tmp_path / "folder")
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    again = morphmlp.HubMorphMLP.from_pretrained(tmp_path / "folder")
    assert not again.training
    assert again.config == network.config
    assert again.class_names == tuple(names)
    assert torch.equal(again(CLIPS), network(CLIPS))
    assert torch.equal(
        morphmlp.create_model(TINY, pretrained_weights=tmp_path / "folder" / "model.safetensors").eval()(CLIPS),
        network(CLIPS),
    )


def test_what_is_pushed_to_the_hub_is_loaded_from_there_by_name(saved, tmp_path, monkeypatch):
    network, _ = saved(TINY)
    with hub_here(monkeypatch, tmp_path / "cache") as hub:
        pushed = morphmlp.HubMorphMLP.of(network, class_names=list("abcd"))
        assert "/someone/tiny/" in str(pushed.push_to_hub("someone/tiny"))
        assert hub.repositories["someone/tiny"].keys() == {"README.md", "config.json", "model.safetensors"}
        again = morphmlp.HubMorphMLP.from_pretrained("someone/tiny", cache_dir=tmp_path / "cache")
    assert torch.equal(again(CLIPS), network(CLIPS))
    assert again.class_names == tuple("abcd")


def test_a_network_that_segments_is_pushed_and_loaded_likewise(tmp_path, monkeypatch):
    config = load_config(ROOT / "tests" / "unit" / "small_segmentation.yaml")
    parts = {"model": hub_model(config.model), "segmentation": hub_segmentation(config.segmentation), "crop_size": 32}
    network = morphmlp.HubMorphMLPSegmentation(**parts, class_names=list("abcd")).eval()
    with hub_here(monkeypatch, tmp_path / "cache") as hub:
        network.push_to_hub("someone/scenes")
        assert b"image-segmentation" in hub.repositories["someone/scenes"]["README.md"]
        again = morphmlp.HubMorphMLPSegmentation.from_pretrained("someone/scenes", cache_dir=tmp_path / "cache")
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(again(images), network(images))
    assert again.class_names == tuple("abcd")
