"""The form of a network of which one graph holds for all sizes, against the network itself."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from morphmlp.config import load_config
from morphmlp.models.any_size_form import as_any_size
from morphmlp.tasks.factory import task_of

SMALL = Path(__file__).parents[1] / "small_segmentation.yaml"
UPERNET = {
    "segmentation.decoder": "upernet",
    "segmentation.decoder_channels": 16,
    "segmentation.auxiliary_weight": 0.4,
}
NETWORKS = {
    "semantic_fpn": {},
    "upernet": UPERNET,
    "chunks of the line": {"model.chunk_shape": "padded_line"},
    "chunks of another crop": {"model.chunk_crop_size": 64, "model.chunk_lengths": [16, 8, 16, 4]},
    "two branches": {"model.branches": ["width", "channel"]},
    "one branch": {"model.branches": ["height"]},
    "added branches": {"model.branch_sum": "plain"},
}
SIZES = [(32, 32), (64, 64), (64, 96), (96, 160), (224, 64)]


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_same_function_on_every_size(name):
    torch.manual_seed(0)
    network = task_of(load_config(SMALL, NETWORKS[name])).network().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    form = as_any_size(deepcopy(network))
    with torch.inference_mode():
        for size in SIZES:
            images = torch.randn(2, 3, *size)
            torch.testing.assert_close(form(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", ["upernet", "chunks of the line", "chunks of another crop", "resnet50"])
def test_a_recorded_graph_of_it_is_the_network_on_every_size_from_two_tokens_on(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    fields = {"segmentation.backbone": "resnet50"} if name == "resnet50" else NETWORKS[name]
    torch.manual_seed(0)
    network = task_of(load_config(SMALL, fields)).network().eval()
    dims = {0: torch.export.Dim("batch", min=1)}
    dims |= {axis: 32 * torch.export.Dim(side, min=2) for axis, side in ((2, "rows"), (3, "columns"))}
    form = as_any_size(deepcopy(network))
    with torch.no_grad():
        program = torch.export.export(form, (torch.zeros(2, 3, 96, 160),), dynamic_shapes=(dims,), strict=False)
    torch.onnx.export(program, dynamo=True, opset_version=18, verbose=False).save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        for size in SIZES[1:]:
            images = torch.randn(1, 3, *size)
            right = network(images)
            torch.testing.assert_close(program.module()(images), right, rtol=1e-4, atol=1e-4)
            found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
