"""The body of `pipelines/predict.py`: files in, names and probabilities out."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import click
from pydantic import JsonValue

from morphmlp.data.decoding.stored_frames.frame_names import shown
from morphmlp.errors import ConfigError, DecodeError
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.prediction.annotate import annotate, save_picture
from morphmlp.prediction.explanation.explained import Subject
from morphmlp.prediction.explanation.files import OPTION, VIDEO_ENDINGS, class_named, write_explanation
from morphmlp.prediction.explanation.scenes import draw_scene, explain_scene
from morphmlp.prediction.inputs import STANDARD_INPUT, each_path, without_path
from morphmlp.prediction.line_output import LineOutput, file_of_lines
from morphmlp.prediction.places import Places
from morphmlp.prediction.predict import Guess, Prediction, predict_over_time, predict_whole
from morphmlp.prediction.scenes import SceneModel
from morphmlp.prediction.sliding import Sliding, sliding
from morphmlp.prediction.trained import TrainedNetwork, find_trained
from morphmlp.progress import TerminalProgress


@dataclass(frozen=True, kw_only=True)
class ExplainArguments:
    """What is to be explained, and where to."""

    target: Path
    stage: int
    label: str | None
    """A class by its name or number; None: each file's top guess."""


@dataclass(frozen=True, kw_only=True)
class PredictArguments:
    """What was asked for."""

    inputs: Sequence[str]
    checkpoint: str
    config: str | None
    overrides: Mapping[str, JsonValue]
    classes: Path | None
    top: int
    window: str | None
    hop: str | None
    json: str | None
    """A file of JSON lines; `-` is standard output, which then has nothing else."""
    annotate: Path | None
    explain: ExplainArguments | None = None
    force: bool = False
    """Whether annotated and explained files may replace others."""


def predict_files(arguments: PredictArguments, *, stdin: BinaryIO) -> None:
    """Predict each file that is named.

    Raises:
        MorphMLPError: Whatever the user can fix; files that can't be used, once the others are done.
    """
    with ExitStack() as opened:
        if sys.stdout is None:  # another file that is opened would take its place
            raise ConfigError(["standard output is closed; send it to /dev/null where nobody reads it"])
        terminal = LineOutput(sys.stdout.fileno(), "standard output")
        lines = None
        if arguments.json == STANDARD_INPUT:
            lines = terminal
        elif arguments.json is not None:
            lines = opened.enter_context(file_of_lines(Path(arguments.json), "--json"))
        places = explained = None
        inputs, force = tuple(arguments.inputs), arguments.force
        if arguments.annotate is not None:
            places = Places("--annotate", arguments.annotate, inputs, force=force)
        if arguments.explain is not None:
            explained = Places(OPTION, arguments.explain.target, inputs, force=force, video=VIDEO_ENDINGS)
        progress = opened.enter_context(TerminalProgress())
        trained = find_trained(
            arguments.checkpoint,
            config=arguments.config,
            overrides=arguments.overrides,
            classes=arguments.classes,
            log=progress.line,
        )
        predictor = _predictor(trained, arguments, progress)
        says = _Says(lines, None if lines is terminal else terminal, unit=predictor.unit)
        for path, fault in each_path(arguments.inputs, stdin, images=trained.config.clip.num_frames == 1):
            says.next()
            try:
                if fault:
                    raise DecodeError(fault)
                found = predictor.predict(path)
                says.prediction(found, predictor.windows)
                if places is not None:
                    progress.line(f"annotated: {shown(str(predictor.annotate(found, places)))}")
                if explained is not None:
                    progress.line(f"explained: {shown(str(predictor.explain(found, explained)))}")
            except DecodeError as error:
                says.broken(path, error)
    says.end()


class _Predictor(Protocol):
    windows: Sliding | None
    unit: str

    def predict(self, path: str) -> Prediction: ...

    def annotate(self, found: Prediction, places: Places) -> Path: ...

    def explain(self, found: Prediction, places: Places) -> Path: ...


def _predictor(trained: TrainedNetwork, arguments: PredictArguments, progress: TerminalProgress) -> _Predictor:
    over_time = arguments.window is not None or arguments.hop is not None
    if trained.config.segmentation is not None:
        if over_time:
            raise ConfigError(["--window, --hop: this network segments images, which have no time; leave them out"])
        if arguments.explain is not None and trained.config.segmentation.backbone != "morphmlp":
            raise ConfigError([f"{OPTION}: shows what a MorphMLP does; the backbone of this network is a ResNet-50"])
        return _Segmenter(SceneModel(trained), arguments.top, arguments.explain)
    windows = None
    if over_time:
        windows = sliding(trained.config.test_clip, window=arguments.window, hop=arguments.hop, to_the_end=True)
    return _Classifier(trained.video_model(), windows, arguments, progress)


class _Classifier:
    """Classes of videos and images."""

    unit = ""

    def __init__(
        self, model: VideoModel, windows: Sliding | None, arguments: PredictArguments, progress: TerminalProgress
    ) -> None:
        self.windows, self._model, self._top, self._progress = windows, model, arguments.top, progress
        self._explain = arguments.explain
        named = None if self._explain is None else self._explain.label
        self._label = None if named is None else class_named(named, model.names)

    def predict(self, path: str) -> Prediction:
        if self.windows is None:
            return predict_whole(self._model, path, top=self._top)

        def on_progress(done: int, of: int) -> None:
            if not done:
                self._progress.phase(shown(path), total=of, unit="windows")
            self._progress.update(done)

        return predict_over_time(self._model, path, self.windows, top=self._top, on_progress=on_progress)

    def annotate(self, found: Prediction, places: Places) -> Path:
        return annotate(self._model, found, places, progress=self._progress)

    def explain(self, found: Prediction, places: Places) -> Path:
        assert self._explain is not None
        return write_explanation(
            self._model,
            found,
            places,
            windows=self.windows,
            stage=self._explain.stage,
            label=self._label,
            progress=self._progress,
        )


class _Segmenter:
    """Classes of an image's pixels."""

    unit = " of the pixels"

    def __init__(self, model: SceneModel, top: int, explain: ExplainArguments | None) -> None:
        self.windows: Sliding | None = None
        self._model, self._top, self._explain = model, top, explain
        named = None if explain is None else explain.label
        self._label = None if named is None else class_named(named, model.names)

    def predict(self, path: str) -> Prediction:
        self._image, self._labels = self._model.label_map(path)
        return self._model.prediction(path, self._labels, top=self._top)

    def annotate(self, found: Prediction, places: Places) -> Path:
        return save_picture(self._model.overlay(self._image, self._labels, found), found.path, places)

    def explain(self, found: Prediction, places: Places) -> Path:
        assert self._explain is not None
        label = found.guesses[0].label if self._label is None else self._label
        subject = Subject(label=label, name=self._model.names[label], stage=self._explain.stage)
        explanation = explain_scene(self._model, self._image, self._labels, subject)
        return save_picture(draw_scene(explanation, self._image, self._labels), found.path, places)


class _Says:
    """Says what was found: on the terminal, in JSON, and which files can't be used."""

    def __init__(self, lines: LineOutput | None, terminal: LineOutput | None, *, unit: str) -> None:
        self._lines, self._terminal, self._unit = lines, terminal, unit
        self._count = self._broken = 0

    def next(self) -> None:
        """Another file is looked at."""
        self._count += 1

    def prediction(self, found: Prediction, windows: Sliding | None) -> None:
        """What was found of it."""
        if self._lines is not None:
            self._lines.line(json.dumps(found.plain() | {"path": shown(found.path)}))
        if self._terminal is not None:
            self._terminal.line("\n".join(_in_words(found, windows, self._unit)))

    def broken(self, path: str, reason: DecodeError) -> None:
        """It can't be used."""
        self._broken += 1
        text = without_path(reason, path)
        print(f"error: {shown(path)}: {text}", file=sys.stderr, flush=True)
        if self._lines is not None:
            self._lines.line(json.dumps({"path": shown(path), "error": text}))

    def end(self) -> None:
        """Leave with an error where files were broken.

        Raises:
            DecodeError: Some of several were.
            click.exceptions.Exit: The only one was, and its line says all.
        """
        if self._broken == self._count == 1:
            raise click.exceptions.Exit(2)
        if self._broken:
            raise DecodeError(f"{self._broken} of {self._count} files can't be used; they are named above")


def _in_words(found: Prediction, windows: Sliding | None, unit: str) -> Iterator[str]:
    yield shown(found.path)
    if windows is not None:
        assert found.fps is not None
        for span in found.spans:
            yield f"  {_clock(span.start_s)} - {_clock(span.end_s)}  {_in_a_line(span.guesses)}"
        yield (
            f"  whole, {found.num_frames} frames at {found.fps:.6g} frames per second, mean of {len(found.spans)} "
            f"windows of {windows.in_words}:"
        )
    for guess in found.guesses:
        yield f"  {100 * guess.probability:5.1f} %{unit}  {guess.name}"


def _in_a_line(guesses: Sequence[Guess]) -> str:
    return ", ".join(f"{guess.name} {100 * guess.probability:.1f} %" for guess in guesses)


def _clock(seconds: float) -> str:
    """As players show it: `0:02.1`, `1:03:07.0`."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{whole}:{rest // 10:02d}.{rest % 10}"
