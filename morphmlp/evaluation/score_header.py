"""What the scores of a store are of: by it a test is continued, and stores are compared."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from morphmlp.errors import ScoreStoreError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
_IDENTITY = {
    "task": "task",
    "data_fingerprint": "videos",
    "class_names": "classes",
    "num_classes": "outputs",
    "weights_sha256": "weights",
    "views": "views",
}
"""Fields by which scores are the same, in words; the experiment's fingerprint speaks where all of these agree."""


@dataclass(frozen=True, kw_only=True)
class ScoreHeader:
    """What the scores of a store are of."""

    task: str
    """As an experiment's `task`."""
    dataset: str
    items: str
    """What a row is: `videos` or `images`."""
    class_names: tuple[str, ...]
    num_classes: int
    """Outputs of the network: as many as there are names, or more."""
    manifest: str
    """Path of the videos' manifest."""
    num_videos: int
    """Videos to be scored: the available ones of the manifest."""
    data_fingerprint: str
    """`Manifest.fingerprint` of these."""
    experiment: str
    """The configuration's name."""
    experiment_fingerprint: str
    """Hash of the configuration's fields that define the result."""
    run_id: str
    """MLflow's, of the run that trained the weights; empty where they came from elsewhere."""
    run_name: str
    """That run's name, or that of the weights' file."""
    checkpoint: str
    """Where the weights were read from."""
    weights_sha256: str
    """`weights_sha256` of the tensors."""
    num_clips: int
    num_crops: int
    views: str
    """Those of a video, in words."""
    git_commit: str
    format: int = FORMAT

    def differences(self, other: "ScoreHeader") -> list[str]:
        """Why scores of another header are other scores than these, each in words; none where they are the same."""
        found = [
            f"{words} {_short(getattr(self, name))}, not {_short(getattr(other, name))}"
            for name, words in _IDENTITY.items()
            if getattr(self, name) != getattr(other, name)
        ]
        if not found and self.experiment_fingerprint != other.experiment_fingerprint:
            found = [f"configuration {self.experiment_fingerprint}, not {other.experiment_fingerprint}"]
        return found

    @cached_property
    def digest(self) -> str:
        """Names what the scores are of, in each part."""
        identity = [getattr(self, name) for name in (*_IDENTITY, "experiment_fingerprint")]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


_HEADER = TypeAdapter(ScoreHeader)


def _short(value: object) -> str:
    if isinstance(value, tuple):
        digest = hashlib.sha256("\n".join(value).encode()).hexdigest()[:6]
        return f"{len(value)}:{digest} ({', '.join(value[:2])}{', ...' if len(value) > 2 else ''})"
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def weights_sha256(weights: "Mapping[str, Tensor]") -> str:
    """A hash of tensors with their names, the same whatever file they came from.

    BatchNorm's counters of batches are left out: no test reads them, and not every file has them.
    """
    import torch  # noqa: PLC0415 (who reads scores needs none)

    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        if name.endswith("num_batches_tracked"):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_header(root: Path) -> ScoreHeader:
    """The header of the store in a folder.

    Raises:
        ScoreStoreError: No store is there, or its header is damaged.
    """
    path = root / "store.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
            raise ScoreStoreError(f"{path}: has format {content['format']}, this code reads format {FORMAT}")
        return _HEADER.validate_python(content)
    except FileNotFoundError:
        raise ScoreStoreError(
            f"{root}: no score store is there (no store.json); pipelines/evaluate.py --scores writes one"
        ) from None
    except (OSError, ValueError) as error:  # pydantic's and JSON's are ValueErrors
        raise ScoreStoreError(f"{path}: is damaged: {' '.join(str(error).split())}") from None
