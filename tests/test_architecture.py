"""The floors and habits of the code base, checked on its source."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "morphmlp"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "pipelines").rglob("*.py"))
MOST_LINES = 400


def imported_packages(tree: ast.Module) -> Iterator[str]:
    """Top-level names of everything that a module imports, at its head or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def modules_importing(package: str) -> list[Path]:
    return [
        path.relative_to(PACKAGE)
        for path in MODULES
        if package in imported_packages(ast.parse(path.read_text(encoding="utf-8")))
    ]


def machine_paths(source: str) -> list[str]:
    """String constants that name a place on one machine."""
    pattern = re.compile(r"(?:^|[\s\"'=:(/])/(?:tmp|home|root|work|mnt|Users|data\d*)(?:/|$)")
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.search(node.value)
    ]


def test_import_floors_hold():
    linter = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linter.returncode == 0, linter.stdout + linter.stderr


def test_only_modules_named_ray_import_ray():
    assert [str(path) for path in modules_importing("ray") if not path.name.startswith("ray_")] == []


def test_only_tracking_imports_mlflow():
    assert [str(path) for path in modules_importing("mlflow") if path.parts[0] not in {"tracking", "tracking.py"}] == []


def test_imports_inside_functions_are_seen():
    tree = ast.parse("def f():\n    from ray.train import report\n    import mlflow.tracking as t\n")
    assert set(imported_packages(tree)) == {"ray", "mlflow"}


@pytest.mark.parametrize("name", ["config", "config.loading", "config.schema", "config.shapes", "errors"])
def test_the_configuration_is_read_without_torch_ray_or_mlflow(name):
    code = f"import sys, morphmlp.{name}; print(*({{'torch', 'torchvision', 'ray', 'mlflow'}} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_can_be_read_in_one_go(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines; split it by what its parts do, {MOST_LINES} are the most"


def test_no_module_is_named_for_odds_and_ends():
    assert [str(path) for path in MODULES if path.stem in {"utils", "util", "helpers", "misc", "common"}] == []


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_code_names_no_place_of_one_machine(path):
    assert machine_paths(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = '/tmp/cache'", True),
        ("x = 'sqlite:////home/me/mlflow.db'", True),
        ("x = 'see /root/x'", True),
        ("x = 'runs/demo'", False),
        ("x = 'top1/home'", False),
    ],
)
def test_machine_paths_are_told_from_other_strings(source, found):
    assert bool(machine_paths(source)) is found
