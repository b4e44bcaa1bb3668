"""The forms that a network is exported in: how each is written into a folder, and run again from there.

What is written is bytes that were made in memory, so that a full disk is what the operating system says of it.
"""

import io
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from morphmlp.errors import ConfigError
from morphmlp.export.facts import COLUMNS, EXTRA_FILE, LEAST_SIDE, METADATA_KEY, OUTPUT, ROWS, ExportedFacts
from morphmlp.models.any_size_form import SIZE_MULTIPLE, as_any_size
from morphmlp.models.network import Network
from morphmlp.training.weights.file import METADATA_KEY as WEIGHTS_KEY

FormName = Literal["onnx", "torch-export", "safetensors", "pyfunc", "hub"]
OPSET = 18
"""Of ONNX: the one that torch's exporter is written for, which runtimes have known since 2023."""
FILES: Mapping[FormName, str] = {
    "onnx": "model.onnx",
    "torch-export": "model.pt2",
    "safetensors": "model.safetensors",
    "pyfunc": "model",
    "hub": "model.safetensors",
}
"""The model's name in the folder; MLflow's is a folder itself."""
_EXTRAS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "onnx": ("onnx", ("onnx", "onnxscript", "onnxruntime")),
    "hub": ("hub", ("huggingface_hub",)),
}
"""By form: this package's extra, and what it installs."""

GRAPHS: frozenset[FormName] = frozenset({"onnx", "torch-export"})
"""Forms that hold the network's computation, and not its weights for this package's code."""

Run = Callable[[Tensor], Tensor]
"""What makes logits of a network's input, both on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form whose input is the network's."""

    write: Callable[[Network, ExportedFacts, Path], None]
    """Writes the file at this path; the network is on the CPU and in evaluation."""
    load: Callable[[Path, Network], Run]
    """What the file at this path gives; of the network, which has fresh weights then, only weights need anything."""


def require_extra(form: FormName) -> None:
    """Refuse a form whose packages aren't installed.

    Raises:
        ConfigError: It says how to install them.
    """
    extra, packages = _EXTRAS.get(form, ("", ()))
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ConfigError(
            [f"--to {form}: needs {', '.join(missing)}, not installed here; pip install 'morphmlp[{extra}]'"]
        )


def form_text(facts: ExportedFacts, form: FormName) -> str:
    """What the file says itself, and `model.json` too."""
    return facts.text(form=form, file=FILES[form], **({"opset": OPSET} if form == "onnx" else {}))


def exported_program(network: Network, facts: ExportedFacts) -> ExportedProgram:
    """The network as torch.export records it, for any batch, and for any size where the facts say so."""
    sides = {"batch": 2, ROWS: 3 * SIZE_MULTIPLE, COLUMNS: 5 * SIZE_MULTIPLE}
    example = torch.zeros([side if isinstance(side, int) else sides[side] for side in facts.input_shape])
    dims: dict[int, Dim] = {0: Dim("batch", min=1)}
    if ROWS in facts.input_shape:
        dims |= {
            axis: SIZE_MULTIPLE * Dim(name, min=LEAST_SIDE // SIZE_MULTIPLE) for axis, name in ((2, ROWS), (3, COLUMNS))
        }
        network = as_any_size(deepcopy(network))
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=(dims,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of code with this machine's folders
    return program


def _write_torch_export(network: Network, facts: ExportedFacts, path: Path) -> None:
    written = io.BytesIO()
    torch.export.save(
        exported_program(network, facts), written, extra_files={EXTRA_FILE: form_text(facts, "torch-export")}
    )
    path.write_bytes(written.getbuffer())


def _load_torch_export(path: Path, network: Network) -> Run:
    del network
    module = torch.export.load(path).module()

    def run(batch: Tensor) -> Tensor:  # a plain function: nobody may put this module in training or evaluation
        logits: Tensor = module(batch)
        return logits

    return run


def _write_onnx(network: Network, facts: ExportedFacts, path: Path) -> None:
    program = torch.onnx.export(
        exported_program(network, facts),
        dynamo=True,
        input_names=[facts.input_name],
        output_names=[OUTPUT],
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = str(facts.input_shape[0])
    for axis, side in enumerate(facts.input_shape[1:], start=1):
        if isinstance(side, str):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = side
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]  # what the exporter knew of each: names and folders of code
    model.producer_name = "morphmlp"
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, form_text(facts, "onnx")
    path.write_bytes(model.SerializeToString())


def _load_onnx(path: Path, network: Network) -> Run:
    import onnxruntime  # noqa: PLC0415 (not every installation has it)

    del network
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.numpy()})[0])


def _write_safetensors(network: Network, facts: ExportedFacts, path: Path, *, form: FormName = "safetensors") -> None:
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    stated = json.dumps(facts.weights, sort_keys=True)
    path.write_bytes(save(state, metadata={WEIGHTS_KEY: stated, METADATA_KEY: form_text(facts, form)}))


def _load_safetensors(path: Path, network: Network) -> Run:
    with safe_open(path, framework="pt") as file:
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return cast(Run, cast(nn.Module, network).eval())


FORMS: Mapping[FormName, Form] = {
    "onnx": Form(write=_write_onnx, load=_load_onnx),
    "torch-export": Form(write=_write_torch_export, load=_load_torch_export),
    "safetensors": Form(write=_write_safetensors, load=_load_safetensors),
    "hub": Form(write=partial(_write_safetensors, form="hub"), load=_load_safetensors),
}
"""Those but MLflow's, whose input are paths. The Hub's are weights in a folder that says how the network is built."""
