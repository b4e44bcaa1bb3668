"""Networks that classify or segment as repositories of the Hugging Face Hub, or folders of the same form."""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import JsonValue, TypeAdapter

from morphmlp.config import ModelConfig
from morphmlp.config.loading import validated
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.models.backbone import MorphMLP
from morphmlp.models.segmentation.network import MorphMLPSegmentation

try:
    from huggingface_hub import PyTorchModelHubMixin
except ImportError:
    raise ImportError("HubMorphMLP needs huggingface_hub, not installed here; pip install 'morphmlp[hub]'") from None

_MODEL, _SEGMENTATION = TypeAdapter(ModelConfig), TypeAdapter(SegmentationConfig)


class HubMorphMLP(
    MorphMLP,
    PyTorchModelHubMixin,
    library_name="morphmlp",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2111.12527",
    tags=["video-classification", "morphmlp"],
):
    """A MorphMLP with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    `from_pretrained` takes the name of a repository or a folder: one that `save_pretrained` or `export.py --to hub`
    wrote. The network is in evaluation mode then.

    Args:
        model: The network's configuration, the section `model` of an experiment.
        num_frames: Frames per clip.
        crop_size: Rows and columns of the training input, pixels.
        class_names: In the order of the logits; None: they are not known.
        preprocessing: How the input is made, as `model.json` of an export says it; None: it is not known.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, JsonValue],
        num_frames: int,
        crop_size: int,
        class_names: Sequence[str] | None = None,
        preprocessing: Mapping[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(validated(ModelConfig, model), num_frames=num_frames, crop_size=crop_size)
        self.class_names = None if class_names is None else tuple(class_names)
        self.preprocessing = preprocessing

    @classmethod
    def of(cls, network: MorphMLP, *, class_names: Sequence[str] | None = None) -> Self:
        """The same network with the same weights, to be saved or pushed."""
        frames = 1 if network.is_image else network.input_shape[1]
        names = None if class_names is None else list(class_names)
        model = hub_model(network.config)
        made = cls(model=model, num_frames=frames, crop_size=network.input_shape[-1], class_names=names)
        made.load_state_dict(network.state_dict())
        return made.train(network.training)


class HubMorphMLPSegmentation(
    MorphMLPSegmentation,
    PyTorchModelHubMixin,
    library_name="morphmlp",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2111.12527",
    tags=["image-segmentation", "morphmlp"],
):
    """A MorphMLP that segments images, with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    `from_pretrained` takes the name of a repository or a folder: one that `save_pretrained` or `export.py --to hub`
    wrote. The network is in evaluation mode then; its logits are at a quarter of the image's rows and columns.

    Args:
        model: The network's configuration, the section `model` of an experiment.
        segmentation: The section `segmentation` of an experiment.
        crop_size: Rows and columns of the training input, pixels.
        class_names: In the order of the logits; None: they are not known.
        preprocessing: How the input is made, as `model.json` of an export says it; None: it is not known.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, JsonValue],
        segmentation: Mapping[str, JsonValue],
        crop_size: int,
        class_names: Sequence[str] | None = None,
        preprocessing: Mapping[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(
            validated(ModelConfig, model),
            segmentation=validated(SegmentationConfig, segmentation),
            crop_size=crop_size,
        )
        self.class_names = None if class_names is None else tuple(class_names)
        self.preprocessing = preprocessing


def hub_model(model: ModelConfig) -> dict[str, JsonValue]:
    """A network's configuration as `config.json` has it."""
    plain: dict[str, JsonValue] = _MODEL.dump_python(model, mode="json")
    return plain


def hub_segmentation(segmentation: SegmentationConfig) -> dict[str, JsonValue]:
    """What is special to a network that segments, as `config.json` has it."""
    plain: dict[str, JsonValue] = _SEGMENTATION.dump_python(segmentation, mode="json")
    return plain
