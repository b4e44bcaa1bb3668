"""The texts next to an exported model: its card, and the script that uses it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from morphmlp.export.facts import EXTRA_FILE, LEAST_SIDE, METADATA_KEY, ROWS, ExportedFacts
from morphmlp.export.forms import FILES, GRAPHS, OPSET, FormName
from morphmlp.export.parity import Parity
from morphmlp.models.any_size_form import SIZE_MULTIPLE
from morphmlp.tasks.scores import further_scores_of, scores_of

_NEEDS = {
    "onnx": "onnxruntime and numpy alone",
    "torch-export": "torch and numpy alone",
    "safetensors": "the package morphmlp",
    "hub": "the package morphmlp with its extra, as in pip install 'morphmlp[hub]'",
}
_PIPELINE_TAGS = {
    "segmentation": "image-segmentation",
    "image": "image-classification",
    "video": "video-classification",
}
"""Of the Hugging Face Hub."""


@dataclass(frozen=True, kw_only=True)
class MeasuredScore:
    """A row of the card's table."""

    title: str
    value: str
    interval: str


def measured_scores(task: str, metrics: Mapping[str, float]) -> list[MeasuredScore]:
    """The scores of a run's test, of its metrics."""
    rows = []
    for name in (*scores_of(task), *further_scores_of(task)):
        key = name.test_metric
        if key not in metrics:
            continue
        low, high = (metrics.get(f"{key}_{end}") for end in ("low", "high"))
        interval = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
        rows.append(MeasuredScore(title=name.title, value=f"{metrics[key]:.2f} {name.unit}", interval=interval))
    return rows


def card(facts: ExportedFacts, parity: Parity, scores: Sequence[MeasuredScore], *, form: FormName, scored: str) -> str:
    """The model card, Markdown with the header that the Hugging Face Hub reads; `scored` says what was scored."""
    kind = "segmentation" if facts.task == "segmentation" else "image" if facts.input_name == "images" else "video"
    return (
        _environment()
        .get_template("card.md.jinja")
        .render(
            facts=facts,
            parity=parity,
            scores=scores,
            scored=scored,
            form=form,
            file=FILES[form],
            opset=OPSET if form == "onnx" else None,
            pipeline_tag=_PIPELINE_TAGS[kind],
            any_size=ROWS in facts.input_shape,
            size_multiple=SIZE_MULTIPLE,
            least_side=LEAST_SIDE,
        )
    )


def use_script(facts: ExportedFacts, *, form: FormName) -> str:
    """A short script that runs the model."""
    segments = facts.task == "segmentation"
    if form == "pyfunc":
        return _environment().get_template("use_pyfunc.py.jinja").render(file=FILES[form], segments=segments)
    return (
        _environment()
        .get_template("use_scenes.py.jinja" if segments else "use_graph.py.jinja")
        .render(
            form=form,
            file=FILES[form],
            what=f"Classes of {facts.input_name}",
            needs=_NEEDS[form],
            axes="[images, rows, columns, 3]" if facts.input_name == "images" else "[clips, frames, rows, columns, 3]",
            fixed=form in GRAPHS and ROWS not in facts.input_shape,
            key=METADATA_KEY,
            extra_file=EXTRA_FILE,
            hub_class="HubMorphMLPSegmentation" if segments else "HubMorphMLP",
        )
    )


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
