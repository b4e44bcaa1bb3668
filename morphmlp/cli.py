"""The shape that all pipelines share: arguments, help, errors, exit codes.

Exit codes: 0 done, 2 a fault that the user can fix (one clear line each, no traceback), 130 Ctrl-C, 143 SIGTERM,
129 SIGHUP.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import click
import yaml
from pydantic import JsonValue

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.faults import all_fields
from morphmlp.config.field_help import help_sections
from morphmlp.config.loading import parse_yaml
from morphmlp.errors import ConfigError, MorphMLPError, RunStoppedError, storage_faults_reported
from morphmlp.stop_signals import StopSignals, signal_of, undisturbed
from morphmlp.targets import json_file, plain_name

HELP_CONFIG = "experiments/demo/morphmlp_demo.yaml"
"""Whose values `--help` shows where no file is named."""
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True}
"""Settings of every command: `@click.command(context_settings=SETTINGS)`."""
A_PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)
COUNT.name = "count"
SECONDS = click.FloatRange(min=0, min_open=True)
SECONDS.name = "seconds"
json_option = click.option(
    "--json",
    type=A_PATH,
    callback=lambda context, option, path: path and json_file(path),
    metavar="FILE",
    help="write the result as JSON",
)


def run(main: Callable[[], None] | click.Command, *, long: bool = False) -> NoReturn:
    """Run a pipeline's `main` and leave the process with its exit code.

    `long`: it works for longer than a reader of its output may be there; what it prints never ends it.
    """
    with _lasting_output() if long else nullcontext():
        code = _exit_code(main)
    sys.exit(code)


def _exit_code(main: Callable[[], None] | click.Command) -> int:
    try:
        with StopSignals().installed(), storage_faults_reported():
            if isinstance(main, click.Command):
                # Not `main.main()`, which turns signals and closed pipes into exit codes of its own.
                with main.make_context(Path(sys.argv[0]).name, sys.argv[1:]) as context:
                    main.invoke(context)
            else:
                main()
    except click.exceptions.Exit as left:  # `--help`
        return left.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.ClickException as error:
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, RunStoppedError) as stop:
        with undisturbed():
            print(str(stop) if isinstance(stop, RunStoppedError) else "stopped", file=sys.stderr)
        return 128 + signal_of(stop)
    except MorphMLPError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (`| head`) has gone; what it wanted has been printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


class _LastingStream:
    """A text stream that drops what can't be written: the pipe's reader or the terminal is gone, the disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost = False
        """Whether anything was dropped."""

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self._stream.write(text)
        except OSError:
            self.lost = True
            return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        try:
            self._stream.flush()
        except OSError:
            self.lost = True

    def close_up(self) -> None:
        """Let the process end well: what still waits in the stream would fail its last flush, and change its code."""
        self.flush()
        if self.lost:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _lasting_output() -> Iterator[None]:
    """Let standard output and error outlast their readers: what a long command prints decides nothing about its work.

    Ones that were closed before the command began lead nowhere.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    before = sys.stdout, sys.stderr
    streams = [
        _LastingStream(stream if stream is not None else os.fdopen(descriptor, "w", closefd=False))
        for descriptor, stream in zip((1, 2), before, strict=True)
    ]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.close_up()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentArguments:
    """What a pipeline over one experiment file was asked to do."""

    config: ExperimentConfig
    run_name: str
    json: Path | None
    start_from: str | None = None
    """A file of weights or a run to start from."""
    extend: str | None = None
    """A run whose training to continue under a longer schedule."""


def experiment_arguments(
    description: str, *, default_config: str | None, argv: Sequence[str] | None = None
) -> ExperimentArguments:
    """Read `--config FILE`, the other options of the command, and dotted overrides such as `--train.epochs 3`.

    `--help` shows every field with its meaning and the file's value; without any file, those of the demo.

    Raises:
        ConfigError: No file is given, or whatever is wrong with the file and the overrides, all at once.
    """
    options: list[click.Parameter] = [
        click.Option(["--config"], default=default_config),
        click.Option(["--run-name"]),
        click.Option(["--json"], type=A_PATH),
        click.Option(["--start-from"]),
        click.Option(["--extend"]),
        click.Option(["-h", "--help"], is_flag=True),
        click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED),
    ]
    command = click.Command(
        None, params=options, add_help_option=False, context_settings={"ignore_unknown_options": True}
    )
    known = command.make_context(Path(sys.argv[0]).name, list(sys.argv[1:] if argv is None else argv)).params
    overrides = parse_overrides([] if known["help"] else known["rest"], options)
    path = known["config"] or (HELP_CONFIG if known["help"] else None)
    if path is None:
        raise ConfigError(["--config FILE: is missing; it names the experiment file to train"])
    config = load_config(path, overrides)
    if known["start_from"] and known["extend"]:
        raise ConfigError(["--start-from and --extend: choose one, weights alone or a whole training"])
    if known["help"]:
        _print_help(description, path, config)
        sys.exit(0)
    run_name = known["run_name"] or f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return ExperimentArguments(
        config=config,
        run_name=plain_name(run_name),
        json=known["json"] and json_file(known["json"]),
        start_from=known["start_from"],
        extend=known["extend"],
    )


def parse_overrides(arguments: Sequence[str], parameters: Collection[click.Parameter] = ()) -> dict[str, JsonValue]:
    """`--model.chunk-lengths 8 4 4 1` or `--model.chunk_lengths=[8,4,4,1]` as `{dotted field: value}`.

    Values are read as YAML; several values make a list. What is like an option of the command, whose parameters these
    are, is taken for that option, misspelt.

    Raises:
        ConfigError: A value without a field, a field without a value, one given twice, or a misspelt option.
    """
    _refuse_misspelt([argument for argument in arguments if argument.startswith("--")], parameters)
    overrides: dict[str, JsonValue] = {}
    faults: list[str] = []
    values: list[str] = []
    field: str | None = None

    def close() -> None:
        if field is None:
            faults.extend(f"{value}: stands before any --field" for value in values)
        elif not values:
            faults.append(f"{field}: is given without a value")
        elif field in overrides:
            faults.append(f"{field}: is given twice")
        else:
            parsed = [_parse_value(field, value, faults) for value in values]
            overrides[field] = parsed[0] if len(parsed) == 1 else parsed

    for argument in arguments:
        if argument.startswith("--"):
            close()
            name, equals, value = argument[2:].partition("=")
            field, values = name.replace("-", "_"), [value] if equals else []
        else:
            values.append(argument)
    close()
    if faults:
        raise ConfigError(faults)
    return overrides


def _refuse_misspelt(written: Sequence[str], parameters: Collection[click.Parameter]) -> None:
    options = [option for parameter in parameters for option in parameter.opts if option.startswith("--")]
    fields = all_fields(ExperimentConfig)
    faults = []
    for name in sorted({argument.partition("=")[0].replace("_", "-") for argument in written}):
        close = get_close_matches(name, options, n=1, cutoff=0.7)
        if close and "." not in name and name[2:].replace("-", "_") not in fields:
            faults.append(f"{name}: unknown option; did you mean {close[0]}?")
    if faults:
        raise ConfigError(faults)


def write_json(path: Path | None, result: Any) -> None:
    """Write a result (a dataclass or plain values) where `--json` names a file."""
    if path is None:
        return
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = dataclasses.asdict(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _parse_value(field: str, text: str, faults: list[str]) -> JsonValue:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        faults.append(f"{field}: {text!r} can't be read as a value")
        return None


def _print_help(description: str, path: str, config: ExperimentConfig) -> None:
    formatter = click.HelpFormatter(max_width=120)
    formatter.write_text(description)
    formatter.write_paragraph()
    formatter.write_dl(
        [
            ("--config FILE", f"experiment file; the values below are those of {path}"),
            ("--run-name NAME", "name of the run; the name of an unfinished run continues it"),
            ("--json FILE", "write the result as JSON"),
            (
                "--start-from X",
                "start from the weights of a file, or of a run by its folder or name; what start_from needs is "
                "set, with a line for each option",
            ),
            ("--extend RUN", "continue a run's training where it ended, as another run with a longer schedule"),
            ("-h, --help", "show this text"),
        ]
    )
    formatter.write_paragraph()
    formatter.write_text("Every field can be overridden:")
    for title, rows in help_sections(config):
        with formatter.section(title):
            formatter.write_dl(rows)
    print(formatter.getvalue(), end="")
