"""The shape that all pipelines share: arguments, help, errors, exit codes.

Exit codes: 0 done, 2 a fault that the user can mend (one clear line each, no traceback), 130 Ctrl-C, 143 SIGTERM,
129 SIGHUP.
"""

import argparse
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, get_args

import tyro
import yaml
from pydantic import JsonValue
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.faults import all_fields
from morphmlp.config.loading import parse_yaml
from morphmlp.config.operation import WorkerRange
from morphmlp.config.schema import EarlyStoppingConfig, StartConfig
from morphmlp.errors import ConfigError, MorphMLPError, RunStoppedError, storage_faults_told
from morphmlp.lasting_output import lasting_output
from morphmlp.stop_signals import StopSignals, signal_of, undisturbed
from morphmlp.targets import json_file, plain_name

HELP_CONFIG = "experiments/demo/morphmlp_demo.yaml"
"""Whose values `--help` shows where no file is named."""


def run(main: Callable[[], None], *, long: bool = False) -> NoReturn:
    """Run a pipeline's `main` and leave the process with its exit code.

    Args:
        main: The pipeline.
        long: It works for longer than a reader of its output may be there: what it prints never ends it.
    """
    with lasting_output() if long else nullcontext():
        code = _exit_code(main)
    sys.exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    try:
        with StopSignals().installed(), storage_faults_told():
            main()
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentArguments:
    """What a pipeline over one experiment file was asked to do."""

    config: ExperimentConfig
    run_name: str
    json: Path | None


def experiment_arguments(
    description: str, *, default_config: str | None, argv: Sequence[str] | None = None
) -> ExperimentArguments:
    """Read `--config FILE`, `--run-name`, `--json FILE` and dotted overrides such as `--train.epochs 3`.

    `--help` shows every field with its meaning and the file's value; without any file, those of the demo.

    Raises:
        ConfigError: No file is given, or whatever is wrong with the file and the overrides, all at once.
    """
    parser = argparse.ArgumentParser(description=description, add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default=default_config)
    parser.add_argument("--run-name")
    parser.add_argument("--json", type=json_file)
    parser.add_argument("-h", "--help", action="store_true")
    known, rest = parser.parse_known_args(argv)
    overrides = parse_overrides([] if known.help else rest)
    refuse_mistaken_options(overrides, parser)
    path = known.config or (HELP_CONFIG if known.help else None)
    if path is None:
        raise ConfigError(["--config FILE: is missing; it names the experiment file to train"])
    config = load_config(path, overrides)
    if known.help:
        _print_help(description, path, config)
        sys.exit(0)
    run_name = known.run_name or f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return ExperimentArguments(config=config, run_name=plain_name(run_name), json=known.json)


def parse_overrides(arguments: Sequence[str]) -> dict[str, JsonValue]:
    """`--model.chunk-lengths 8 4 4 1` or `--model.chunk_lengths=[8,4,4,1]` as `{dotted field: value}`.

    Values are read as YAML; several values make a list.

    Raises:
        ConfigError: A value without a field, a field without a value, or one given twice.
    """
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


def refuse_mistaken_options(overrides: Mapping[str, JsonValue], parser: argparse.ArgumentParser) -> None:
    """Refuse what was taken for a field of the experiment, but is like an option of the command.

    Raises:
        ConfigError: Such options, each with the one that may have been meant.
    """
    options = re.findall(r"--[\w-]+", parser.format_usage())
    faults = []
    for field in overrides.keys() - all_fields(ExperimentConfig):
        written = f"--{field.replace('_', '-')}"
        if "." not in field and (close := get_close_matches(written, options, n=1, cutoff=0.7)):
            faults.append(f"{written}: unknown option; did you mean {close[0]}?")
    if faults:
        raise ConfigError(sorted(faults))


def whole_number(text: str) -> int:
    """A number of rounds, steps, videos, ... from the command line, as an argument's `type`."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return number


def write_json(path: Path | None, result: Any) -> None:
    """Write a result (a dataclass or plain values) where `--json` asked for it."""
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
    print(
        f"{description}\n\n"
        "  --config FILE     experiment file; the values below are those of "
        f"{path}\n"
        "  --run-name NAME   name of the run; the name of an unfinished run continues it\n"
        "  --json FILE       write the result as JSON\n"
    )
    # Without weights to start from, the options of `start_from` are shown as those of a FILE.
    shown = dataclasses.replace(
        config,
        start_from=config.start_from or StartConfig(weights="FILE"),
        train=dataclasses.replace(
            config.train,
            # Without early stopping a value that never stops is shown.
            early_stopping=config.train.early_stopping or EarlyStoppingConfig(epochs=config.train.epochs),
        ),
    )
    with _one_argument_for_a_range_of_workers():
        tyro.cli(
            ExperimentConfig,
            default=shown,
            args=["--help"],
            description="Every field can be overridden:",
            config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
        )


def _one_argument_for_a_range_of_workers() -> ConstructorRegistry:
    """Lets the help show `cluster.num_workers` as one field; tyro would make subcommands of its forms."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if WorkerRange not in get_args(info.type):
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT|{min: INT, max: INT}|None",
            instance_from_str=lambda words: words,  # only the help is made by tyro
            is_instance=lambda value: value is None or isinstance(value, int | WorkerRange),
            str_from_instance=lambda value: [
                f"{{min: {value.min}, max: {value.max}}}" if isinstance(value, WorkerRange) else str(value)
            ],
        )

    return registry
