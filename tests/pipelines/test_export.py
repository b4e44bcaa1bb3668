"""`pipelines/export.py` as a user runs it, and what it wrote used by another process, without this package."""

import json
import os
import re
import runpy
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

from morphmlp import HubMorphMLP, HubMorphMLPSegmentation
from morphmlp.config import load_config
from morphmlp.data.synthetic.kinetics_layout import write_video
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.segmentation.prediction import predict_labels
from morphmlp.tasks.task import network_input

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipelines" / "export.py"
SMALL = ROOT / "tests" / "unit" / "small_experiment.yaml"
FILES = {"onnx": "model.onnx", "torch-export": "model.pt2", "safetensors": "model.safetensors", "pyfunc": "model"}
FILES |= {"hub": "model.safetensors"}
NEED_THE_PACKAGE = {"safetensors": "experiment.yaml", "hub": "config.json"}
"""Forms whose script needs this package, and what says how the network is built."""
LOADED_BY_THE_HUB = "Loading weights from local directory"
"""What huggingface_hub prints."""
KINDS = ("video", "image", "segmentation")


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the script as `__main__`, but in this process: torch is imported once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return Done(ended.value.code, *capsys.readouterr())

    return run


def small_experiment(kind):
    content = yaml.safe_load(SMALL.read_text())
    if kind != "video":
        content["model"] |= {"temporal": "none"}
        content["clip"] |= {"num_frames": 1}
    if kind == "segmentation":
        scenes = yaml.safe_load((ROOT / "experiments/demo/scenes.yaml").read_text())
        del content["augment"], content["mixing"], content["test"]
        content |= {"task": "segmentation", "segmentation": scenes["segmentation"] | {"decoder_channels": 8}}
        content["model"] |= {"chunk_lengths": [8, 4, 2, 1]}
    return content


@pytest.fixture
def weights(tmp_path):
    """Writes an experiment, its classes and weights whose logits differ from each other."""

    def write(kind):
        (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(small_experiment(kind)))
        (tmp_path / "classes.txt").write_text("walk\nrun\njump a rope\n„sitting“\n")
        torch.manual_seed(0)
        network = task_of(load_config(tmp_path / "experiment.yaml")).network()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        return ["--checkpoint", "weights.pth", "--config", "experiment.yaml", "--classes", "classes.txt"]

    return write


def without_this_package(*arguments, folder):
    """Another process, to which only what is installed in site-packages is there, but for this package."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = sysconfig.get_paths()["purelib"]  # whose .pth files aren't read there
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_this_package_cannot_be_imported_where_exported_models_are_tried(tmp_path):
    done = without_this_package("-c", "import morphmlp", folder=tmp_path)
    assert "No module named 'morphmlp'" in done.stderr


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        *((form, kind) for form in NEED_THE_PACKAGE for kind in KINDS),
        *(pytest.param("onnx", kind, marks=pytest.mark.slow) for kind in KINDS),
        pytest.param("torch-export", "video", marks=pytest.mark.slow),
        pytest.param("torch-export", "image", marks=pytest.mark.long),
        pytest.param("torch-export", "segmentation", marks=pytest.mark.long),
    ],
)
def test_an_exported_model_gives_the_networks_logits_by_its_own_script(
    form, kind, weights, *, command, tmp_path, monkeypatch, capsys
):
    done = command(*weights(kind), "--to", form, "--output", "out", "--json", "result.json")
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "out"
    own = {NEED_THE_PACKAGE[form]} if form in NEED_THE_PACKAGE else set()
    names = {FILES[form], "README.md", "model.json", "use_model.py", "example.npz"} | own
    assert {path.name for path in out.iterdir()} == names
    facts = json.loads((out / "model.json").read_text())
    sizes = {"batch 1, 96x128"} if kind == "segmentation" else set()
    assert set(facts["parity"]["differences"]) == {"batch 1", "batch 3"} | sizes
    assert max(facts["parity"]["differences"].values()) <= 1e-4 < facts["parity"]["largest_logit"]
    assert json.loads((tmp_path / "result.json").read_text())["parity"] == facts["parity"]
    assert facts["class_names"] == ["walk", "run", "jump a rope", "„sitting“"]
    assert (facts["form"], facts["preprocessing"]["short_edge"], facts["preprocessing"]["channel_order"]) == (
        form,
        36,
        "rgb",
    )
    sides = ["rows", "columns"] if kind == "segmentation" else [32, 32]
    assert facts["input_shape"] == ["batch", 3, *([4] if kind == "video" else []), *sides]
    assert facts["source"]["which"] == "weights weights.pth"
    said = metadata_of(out / FILES[form])
    assert said == {name: value for name, value in facts.items() if name not in {"parity", "measured"}}
    if form in NEED_THE_PACKAGE:
        monkeypatch.setattr(sys, "argv", ["use_model.py"])
        runpy.run_path(str(out / "use_model.py"))
        said = capsys.readouterr().out
    else:
        used = without_this_package(out / "use_model.py", folder=tmp_path)
        assert used.returncode == 0, used.stderr
        said = used.stdout
    assert [path.name for path in out.iterdir() if str(ROOT).encode() in path.read_bytes()] == []
    *answers, last = (line for line in said.splitlines() if line != LOADED_BY_THE_HUB)
    assert len(answers) == 1
    assert float(last.removeprefix("greatest difference from the network: ")) <= 1e-4
    if kind == "segmentation":
        return
    # The script's own pixels: those of three clips, of which the first is the example.
    with np.load(out / "example.npz") as file:
        example = file["pixels"]
    np.save(tmp_path / "three.npy", np.concatenate([example, example[:, ::-1], example]))
    if form not in NEED_THE_PACKAGE:
        three = without_this_package(out / "use_model.py", "three.npy", folder=tmp_path).stdout.splitlines()
        assert [line[1:] for line in three[::2]] == [answers[0][1:]] * 2


SLIDE = {"mode": "slide", "stride": 48}
VIEWS = {
    "whole": {},
    "windows": SLIDE,
    "scales, mirrored": {"scales": [0.5, 1.0, 1.7], "flip": True},
    "windows of scales": {**SLIDE, "scales": [1.0, 1.5], "flip": True},
}


@pytest.mark.parametrize(
    ("form", "views"),
    [
        *(("safetensors", views) for views in VIEWS),
        ("hub", "windows of scales"),
        pytest.param("onnx", "windows of scales", marks=pytest.mark.slow),
        pytest.param("onnx", "whole", marks=pytest.mark.long),
    ],
)
def test_an_exported_models_script_makes_the_label_maps_of_the_test(form, views, segmented, tmp_path, monkeypatch):
    config, network, out = segmented(form, **VIEWS[views])
    for number, size in enumerate([(70, 101), (133, 64)]):  # made smaller and larger, lying and upright
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        image[: size[0] // 2] //= 4
        np.save(tmp_path / "image.npy", image)
        if form in NEED_THE_PACKAGE:
            monkeypatch.setattr(sys, "argv", ["use_model.py", str(tmp_path / "image.npy"), str(tmp_path / "found.npy")])
            runpy.run_path(str(out / "use_model.py"))
        else:
            used = without_this_package(out / "use_model.py", "image.npy", "found.npy", folder=tmp_path)
            assert used.returncode == 0, used.stderr
        cpu = torch.device("cpu")
        right = predict_labels(network, image, config=config.segmentation, clip=config.clip, device=cpu)
        assert len(np.unique(right.labels)) > 1
        np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), right.labels)


@pytest.fixture
def segmented(weights, command, tmp_path):
    """Exports a network for scenes with such views in its test: the experiment, the network, the folder."""

    def export(form, *, clip=(), model=(), segmentation=(), **test):
        named = weights("segmentation")
        content = yaml.safe_load((tmp_path / "experiment.yaml").read_text())
        content["segmentation"] |= {"test": test, "long_edge": 160} | dict(segmentation)
        content["clip"] |= {"crop_size": 64, "short_edge": 80} | dict(clip)
        content["model"] |= {"chunk_crop_size": 32} | dict(model)
        (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
        done = command(*named, "--to", form, "--output", "out")
        if done.returncode:
            return done
        config = load_config(tmp_path / "experiment.yaml")
        network = task_of(config).network().eval()
        network.load_state_dict(torch.load(tmp_path / "weights.pth"))
        return config, network, tmp_path / "out"

    return export


@pytest.mark.long
def test_windows_of_one_size_are_exported_where_no_other_can_be(segmented, tmp_path):
    config, network, out = segmented(
        "onnx", clip={"crop_size": 48, "short_edge": 50}, mode="slide", stride=30, size_divisor=None
    )
    assert json.loads((out / "model.json").read_text())["input_shape"] == ["batch", 3, 48, 48]
    image = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    used = without_this_package(out / "use_model.py", "image.npy", "found.npy", folder=tmp_path)
    assert used.returncode == 0, used.stderr
    cpu = torch.device("cpu")
    right = predict_labels(network, image, config=config.segmentation, clip=config.clip, device=cpu).labels
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), right)
    np.save(tmp_path / "image.npy", np.zeros((30, 400, 3), np.uint8))
    small = without_this_package(out / "use_model.py", "image.npy", folder=tmp_path)
    assert (small.returncode, small.stderr) == (1, "12x160 pixels are less than the 48 of a window\n")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"size_divisor": None}, "segmentation.test.size_divisor is None; one graph takes multiples of 32 alone"),
        ({"size_divisor": 48}, "segmentation.test.size_divisor is 48; one graph takes multiples of 32 alone"),
        (
            {"model": {"chunk_shape": "padded_side", "chunk_crop_size": None}},
            "model.chunk_shape is padded_side, which pads",
        ),
    ],
)
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_sizes_that_no_graph_takes_are_refused_in_one_line(form, changed, fault, segmented):
    done = segmented(form, **changed)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --to {form}: a graph for whole images can't be made: {fault}")
    assert "--segmentation.test.mode slide" in line


def test_safetensors_say_the_network_to_other_commands_too(weights, command, tmp_path):
    command(*weights("video"), "--to", "safetensors", "--output", "out")
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["morphmlp.export"])
    assert facts["weights"]["model"]["chunk_lengths"] == [8, 8, 4, 1]
    assert facts["network"].endswith("(video), 4 frames, 4 classes")
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), f"{path.name} tells where it was made"
    again = ["--checkpoint", "out/model.safetensors", "--config", "out/experiment.yaml", "--classes", "classes.txt"]
    done = command(*again, "--to", "safetensors", "--output", "again")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_hubs_folder_is_loaded_by_name_with_its_classes_and_preprocessing(kind, weights, command, tmp_path):
    done = command(*weights(kind), "--to", "hub", "--output", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hf upload" in done.stdout
    network = (HubMorphMLPSegmentation if kind == "segmentation" else HubMorphMLP).from_pretrained(tmp_path / "out")
    assert not network.training
    with np.load(tmp_path / "out" / "example.npz") as file:
        example = dict(file)
    pixels = torch.from_numpy(example["pixels"])
    logits = network(network_input(pixels if kind == "video" else pixels[:, None], network, torch.device("cpu")))
    np.testing.assert_array_equal(logits.detach().numpy(), example["logits"])
    assert network.class_names[1] == "run"
    assert network.preprocessing["short_edge"] == 36
    network.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads(
        (tmp_path / "out" / "config.json").read_text()
    )


def test_the_hub_takes_no_resnet(segmented):
    done = segmented("hub", segmentation={"backbone": "resnet50"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "--to hub: takes MorphMLPs; the backbone of this network is a ResNet-50" in done.stderr


def metadata_of(path):
    """What a model's file says itself."""
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        text = {entry.key: entry.value for entry in model.metadata_props}["morphmlp.export"]
        assert json.loads(text)["opset"] == next(entry.version for entry in model.opset_import if not entry.domain)
        return json.loads(text)
    if path.suffix == ".pt2":
        extra = {"morphmlp.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["morphmlp.json"])
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["morphmlp.export"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mlflows_model_brings_the_package_along(kind, weights, command, tmp_path):
    done = command(*weights(kind), "--to", "pyfunc", "--output", "out")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out" / "model.json").read_text())
    assert set(facts["parity"]["differences"]) == {"1 files", "3 files"}
    video = tmp_path / "noise.mp4"
    write_video(video, np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), dtype=np.uint8))
    if kind == "segmentation":
        video = video.with_suffix(".png")
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(video)
    (tmp_path / "text.mp4").write_text("no video")
    needless = "import sys; sys.modules.update(dict.fromkeys(['ray', 'matplotlib', 'optuna', 'tabulate', 'rich']))"
    code = f"{needless}; import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    used = without_this_package("-c", code, "out/use_model.py", video, "text.mp4", folder=tmp_path)
    assert used.returncode == 0, used.stderr
    first, *map_line, second = used.stdout.splitlines()
    assert map_line == ["the class of each pixel: noise_map.png"] * (kind == "segmentation")
    assert re.search(rf"{video.name} \{{'[^}}]*%'\}}$", first)
    assert "text.mp4" in second
    assert "%" not in second
    if kind == "segmentation":
        config = load_config(tmp_path / "experiment.yaml")
        network = task_of(config).network().eval()
        network.load_state_dict(torch.load(tmp_path / "weights.pth"))
        image, cpu = np.array(Image.open(video)), torch.device("cpu")
        right = predict_labels(network, image, config=config.segmentation, clip=config.clip, device=cpu).labels
        found = tmp_path / "noise_map.png"
        np.testing.assert_array_equal(np.asarray(Image.open(found)), right)
        found.write_bytes(b"a user's own")
        again = without_this_package("-c", code, "out/use_model.py", video, folder=tmp_path)
        assert (again.returncode, found.read_bytes()) == (0, b"a user's own"), again.stderr
        assert "noise_map.png is there already" in again.stdout


FAULTS = {
    "another task's weights": (
        ["--config", "scenes.yaml", "--classes", None],
        "--checkpoint: {cwd}/weights.pth: it is a MorphMLP of depths",
    ),
    "no experiment": (["--config", None], "--config FILE: is missing; {cwd}/weights.pth doesn't say"),
    "no such weights": (["--checkpoint", "nothing"], "--checkpoint: nothing: no such file, folder or run"),
    "unknown form": (["--to", "tensorrt"], "Invalid value for '--to': 'tensorrt' is not one of"),
    "a folder in use": (["--output", "used"], "--output: {cwd}/used: holds other files (a, b, c and 1 more); name a"),
    "a file": (["--output", "weights.pth"], "--output: {cwd}/weights.pth: {cwd}/weights.pth is a file; name another"),
    "no place": (["--output", "/proc/out"], "--output: /proc/out: /proc can't be written to"),
    "no classes": (["--classes", None], "--classes FILE: is missing, a list of the names of the classes: none of"),
    "too many classes": (["--classes", "many.txt"], "--classes: many.txt names 5 classes, the network has 4"),
    "an unknown field": (["--model.dephts", "1"], "model.dephts: unknown field"),
    "not weights": (["--checkpoint", "text.pth"], "{cwd}/text.pth: is a text, not weights"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_one_line_and_leave_nothing_behind(case, weights, command, tmp_path):
    options = dict(zip(*[iter(weights("video"))] * 2, strict=True)) | {"--to": "safetensors", "--output": "out"}
    scenes = small_experiment("segmentation")
    (tmp_path / "scenes.yaml").write_text(yaml.safe_dump(scenes))
    (tmp_path / "many.txt").write_text("a\nb\nc\nd\ne\n")
    (tmp_path / "text.pth").write_text("a letter to nobody")
    (tmp_path / "used").mkdir()
    for name in "dcba":
        (tmp_path / "used" / name).touch()
    before = sorted(tmp_path.rglob("*"))
    given, fault = FAULTS[case]
    options |= dict(zip(*[iter(given)] * 2, strict=True))
    done = command(*(word for pair in options.items() if pair[1] is not None for word in pair))
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {fault.format(cwd=tmp_path)}"), line
    assert sorted(path for path in tmp_path.rglob("*") if "mlruns" not in path.parts) == before


def test_a_missing_package_is_named_with_what_installs_it(weights, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = command(*weights("video"), "--to", "onnx", "--output", "out")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --to onnx: needs onnxscript, not installed here; pip install 'morphmlp[onnx]'\n",
    )


def test_a_model_that_is_not_the_network_is_not_handed_over(weights, command, monkeypatch, tmp_path):
    from morphmlp.export import forms

    right = forms.FORMS["safetensors"]
    wrong = forms.Form(write=right.write, load=lambda path, network: lambda x: right.load(path, network)(x) + 2e-4)
    monkeypatch.setitem(forms.FORMS, "safetensors", wrong)
    done = command(*weights("video"), "--to", "safetensors", "--output", "out")
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: --to safetensors: the exported model isn't the network: logits differ by 2\.0e-04 \(batch \d\), at "
        r"most 0\.0001 is allowed; nothing was written\n",
        done.stderr,
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("form", ["safetensors", "pyfunc"])
def test_a_full_disk_is_one_line_and_leaves_no_folder(form, weights, command, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        done = command(*weights("video"), "--to", form, "--output", "disk/out")
        assert (done.returncode, done.stdout) == (2, "")
        full = f"error: {disk}/out: No space left on device; the same command continues once that is fixed\n"
        assert done.stderr == full
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)
