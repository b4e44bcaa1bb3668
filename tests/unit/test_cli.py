"""Arguments, help, errors and exit codes that all pipelines share."""

import dataclasses
import errno
import inspect
import json
import os
import re
from pathlib import Path

import pytest

from morphmlp.cli import experiment_arguments, parse_overrides, run, write_json
from morphmlp.config import schema, segmentation, start
from morphmlp.config.loading import flat_fields, load_config
from morphmlp.errors import ConfigError, DecodeError
from morphmlp.record import MetricPoint

SMALL = Path(__file__).parent / "small_experiment.yaml"


def arguments_of(*argv):
    return experiment_arguments("Train.", default_config=str(SMALL), argv=list(argv))


def faults_of(call):
    with pytest.raises(ConfigError) as caught:
        call()
    return list(caught.value.faults)


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        ([], {}),
        (["--train.epochs", "3"], {"train.epochs": 3}),
        (["--train.epochs=3"], {"train.epochs": 3}),
        (["--model.depths", "1", "2", "3", "4"], {"model.depths": [1, 2, 3, 4]}),
        (["--model.depths=[1,2,3,4]"], {"model.depths": [1, 2, 3, 4]}),
        (["--model.depths", "[1, 2, 3, 4]"], {"model.depths": [1, 2, 3, 4]}),
        (["--model.chunk-lengths", "8", "4"], {"model.chunk_lengths": [8, 4]}),
        (["--optim.lr", "1e-3"], {"optim.lr": 0.001}),
        (["--optim.lr", "-1"], {"optim.lr": -1}),
        (["--optim.lr", "-1e-3"], {"optim.lr": -0.001}),
        (["--x", "-1", "-2.5"], {"x": [-1, -2.5]}),
        (["--train.max_steps", "null"], {"train.max_steps": None}),
        (["--name", "a-b"], {"name": "a-b"}),
        (["--name=a=b"], {"name": "a=b"}),
        (["--execution.activation-checkpointing", "on"], {"execution.activation_checkpointing": "on"}),
        (["--ingest.node_labels={node-role: ingest}"], {"ingest.node_labels": {"node-role": "ingest"}}),
        (["--a.b", "1", "--c", "x", "y", "--d=2"], {"a.b": 1, "c": ["x", "y"], "d": 2}),
        (["--a=1", "2"], {"a": [1, 2]}),
    ],
)
def test_overrides_are_read_in_every_form(arguments, overrides):
    assert parse_overrides(arguments) == overrides


def test_all_faults_of_the_overrides_are_told_at_once():
    faults = faults_of(lambda: parse_overrides(["7", "--a", "--b", "1", "--b", "2", "--c", "[1"]))
    assert faults == [
        "7: stands before any --field",
        "a: is given without a value",
        "b: is given twice",
        "c: '[1' can't be read as a value",
    ]


def test_a_field_in_both_spellings_is_given_twice():
    assert faults_of(lambda: parse_overrides(["--a-b", "1", "--a_b", "2"])) == ["a_b: is given twice"]


def test_arguments_put_overrides_over_the_file(tmp_path):
    result = arguments_of("--train.epochs", "5", "--run-name", "r1", "--json", str(tmp_path / "o.json"))
    assert result.config == load_config(SMALL, {"train.epochs": 5})
    assert (result.run_name, result.json) == ("r1", tmp_path / "o.json")


def test_another_file_is_read_with_config(tmp_path):
    (tmp_path / "e.yaml").write_text(SMALL.read_text().replace("name: small", "name: other"))
    assert arguments_of("--config", str(tmp_path / "e.yaml")).config.name == "other"


def test_negative_numbers_reach_the_schema():
    assert faults_of(lambda: arguments_of("--optim.lr", "-1")) == ["optim.lr: input should be greater than 0, got -1"]


def test_a_shortened_option_is_an_unknown_field_and_not_a_guess():
    assert faults_of(lambda: arguments_of("--conf", "x.yaml")) == ["--conf: unknown option; did you mean --config?"]


@pytest.mark.parametrize(
    ("argument", "fault"),
    [
        ("--run-nam", "--run-nam: unknown option; did you mean --run-name?"),
        ("--jsn", "--jsn: unknown option; did you mean --json?"),
        ("--train.epoch", "train.epoch: unknown field; did you mean train.epochs?"),
        ("--cluster.num-wokers", "cluster.num_wokers: unknown field; did you mean cluster.num_workers?"),
        ("--epochs", "epochs: unknown field; did you mean train.epochs?"),
        (
            "--short-edge",
            "short_edge: unknown field; did you mean augment.short_edge or clip.short_edge or test.short_edge?",
        ),
        ("--trayn.epochs", "trayn: unknown field; did you mean train?"),
        ("--color", "color: unknown field"),
    ],
)
def test_what_was_meant_by_a_misspelt_argument_is_proposed(argument, fault):
    assert faults_of(lambda: arguments_of(argument, "1")) == [fault]


def test_a_misspelt_option_is_proposed_though_its_value_is_missing():
    assert faults_of(lambda: arguments_of("--run-nam")) == ["--run-nam: unknown option; did you mean --run-name?"]


def test_a_run_without_a_name_is_named_after_its_experiment_and_the_time():
    assert re.fullmatch(r"small-\d{8}-\d{6}", arguments_of().run_name)


@pytest.mark.parametrize("name", ["a/b", "/tmp/x", ".hidden", "..", "../x"])
def test_a_run_name_that_is_a_path_is_refused(name):
    (fault,) = faults_of(lambda: arguments_of("--run-name", name))
    assert fault.startswith(f"--run-name: {name!r} must be a plain name")


OPTIONAL_SECTIONS = {
    "start_from": start.StartConfig,
    "early_stopping": schema.EarlyStoppingConfig,
    "segmentation": segmentation.SegmentationConfig,
}


def documented_fields(owner=schema.ExperimentConfig, prefix=""):
    """Every leaf of the schema with the first words of its docstring."""
    source = inspect.getsource(owner)
    for field in dataclasses.fields(owner):
        section = OPTIONAL_SECTIONS.get(field.name, field.type)
        if dataclasses.is_dataclass(section):
            yield from documented_fields(section, f"{prefix}{field.name}.")
        else:
            text = re.search(rf'^    {field.name}: [^\n]*\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL).group(1)
            yield f"{prefix}{field.name}", " ".join(text.replace("`", "").split())


DOCUMENTED = dict(documented_fields())


def squeezed(text):
    """A text without the frames and line breaks that the help puts into it."""
    return re.sub(r"[^\w.,;:%/()'=-]+", "", re.sub(r"\x1b\[[0-9;]*m", "", text))


@pytest.fixture(scope="module")
def help_text():
    with pytest.MonkeyPatch.context() as patch:
        import contextlib
        import io

        patch.setenv("COLUMNS", "120")
        with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit) as left:
            arguments_of("--help")
        assert left.value.code == 0
        return text.getvalue()


def test_help_names_the_file_and_the_options(help_text):
    assert help_text.startswith("Train.\n")
    for option in ("--config FILE", "--run-name NAME", "--json FILE", str(SMALL)):
        assert option in help_text


@pytest.mark.parametrize("field", DOCUMENTED)
def test_help_shows_the_field_with_its_meaning(field, help_text):
    assert f"--{field.replace('_', '-')}" in help_text
    assert squeezed(DOCUMENTED[field]) in squeezed(help_text)


WITH_OPTIONAL_SECTIONS = {"start_from.weights": "FILE", "train.early_stopping.epochs": 3}
"""What sections that the file leaves out can't do without."""


def test_help_shows_the_values_of_the_file(help_text):
    for name, value in flat_fields(load_config(SMALL, WITH_OPTIONAL_SECTIONS)).items():
        if isinstance(value, dict) or name in WITH_OPTIONAL_SECTIONS or name in OPTIONAL_SECTIONS:
            continue
        words = [json.dumps(word).strip('"') for word in (value if isinstance(value, list) else [value])]
        flag = f"--{name.replace('_', '-')}"
        entry = help_text[help_text.index(flag + " ") :][:1500]
        assert f"(default:{squeezed(' '.join(words))})" in squeezed(entry), name


def test_help_shows_a_range_of_workers_and_given_weights(tmp_path, capsys):
    sections = "cluster: {num_workers: {min: 2, max: 4}}\nstart_from: {weights: mine.pth}\n"
    (tmp_path / "e.yaml").write_text(SMALL.read_text() + sections)
    with pytest.raises(SystemExit):
        arguments_of("--config", str(tmp_path / "e.yaml"), "--help")
    shown = squeezed(capsys.readouterr().out)
    assert squeezed("(default: {min: 2, max: 4})") in shown
    assert "(default:mine.pth)" in shown


def test_help_documents_every_field():
    files = (SMALL, SMALL.with_name("small_segmentation.yaml"))
    fields = {field for file in files for field in flat_fields(load_config(file, WITH_OPTIONAL_SECTIONS))}
    assert set(DOCUMENTED) == fields - set(OPTIONAL_SECTIONS)
    assert all(DOCUMENTED.values())


def left_with(main):
    with pytest.raises(SystemExit) as left:
        run(main)
    return left.value.code


def raising(error):
    def main():
        raise error

    return main


def test_a_pipeline_that_ends_well_leaves_with_0(capsys):
    assert left_with(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_faults_of_the_user_are_one_line_each_and_leave_with_2(capsys):
    assert left_with(raising(ConfigError(["a.b: wrong", "c: also wrong"]))) == 2
    assert capsys.readouterr() == ("", "error: a.b: wrong\nerror: c: also wrong\n")


def test_every_error_of_the_project_leaves_with_2(capsys):
    assert left_with(raising(DecodeError("x.mp4: broken"))) == 2
    assert capsys.readouterr().err == "error: x.mp4: broken\n"


def test_ctrl_c_leaves_with_130(capsys):
    assert left_with(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def test_an_exit_code_of_the_pipeline_itself_is_kept():
    assert left_with(raising(SystemExit(5))) == 5


def test_a_result_is_written_as_json_where_it_was_asked_for(tmp_path):
    write_json(tmp_path / "new" / "r.json", MetricPoint("val/loss", 0.5, 2, 1))
    text = (tmp_path / "new" / "r.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {"key": "val/loss", "value": 0.5, "step": 2, "timestamp_ms": 1}


def test_no_json_is_written_where_none_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(None, {"a": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_disk_s_fault_is_one_line_and_code_2(number, capsys):
    def fail():
        raise OSError(number, "", "/data/predictions.parquet")

    with pytest.raises(SystemExit) as caught:
        run(fail)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: /data/predictions.parquet: {os.strerror(number)}; the same command continues")


def test_another_fault_of_the_operating_system_keeps_its_traceback():
    def fail():
        raise FileNotFoundError(errno.ENOENT, "", "gone")

    with pytest.raises(FileNotFoundError):
        run(fail)
