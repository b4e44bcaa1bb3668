"""The floors and habits of the code base, checked on its source."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "morphmlp"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "pipelines").rglob("*.py"))
TOOLS = ("morphmlp/benchmarks/", "morphmlp/drill/")
"""They are below the package so that floors, types and tests hold for them; a wheel leaves them out."""
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


def test_the_floors_in_contributing_are_those_that_are_checked():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (floors,) = (contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    table = [
        f"| {len(floors) - 1 - place} | {', '.join(f'`{module}`' for module in floor.split(' | '))} |"
        for place, floor in enumerate(floors)
    ]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| \d+ \| .*\|$", text, re.MULTILINE)
    assert written == table, "the table under Floors must read:\n" + "\n".join(table)


@pytest.fixture(scope="module")
def in_the_wheel():
    """Files of an installed package, by the place that they have in it."""
    return {file.distribution_path: Path(file.path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}


def test_the_wheel_holds_all_of_the_package_but_the_repositorys_tools(in_the_wheel):
    files = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*") if path.is_file()}
    tools = {file for file in files if file.startswith(TOOLS)}
    assert tools
    assert set(in_the_wheel) == {file for file in files - tools if "__pycache__" not in file}
    assert "morphmlp/py.typed" in in_the_wheel


def test_nothing_in_the_wheel_names_the_repositorys_tools(in_the_wheel):
    names = [tool.rstrip("/").replace("/", ".") for tool in TOOLS]
    sources = {place: path.read_text(encoding="utf-8") for place, path in in_the_wheel.items() if path.suffix == ".py"}
    assert [place for place, source in sources.items() if any(name in source for name in names)] == []


def test_only_modules_named_ray_import_ray():
    assert [str(path) for path in modules_importing("ray") if not path.name.startswith("ray_")] == []


def test_only_tracking_imports_mlflow():
    assert [str(path) for path in modules_importing("mlflow") if path.parts[0] not in {"tracking", "tracking.py"}] == []


def test_only_who_asks_for_a_resnet_waits_for_torchvision_which_costs_a_process_seconds():
    # A benchmark compares with its loader, in a process of its own.
    outside = [str(path) for path in modules_importing("torchvision") if path.parts[0] != "benchmarks"]
    assert outside == ["models/segmentation/resnet.py"]
    code = "import sys, morphmlp.models.segmentation.resnet; print('torchvision' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["False"]


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


def test_the_repository_keeps_texts_and_pictures_alone():
    """A database or a checkpoint that a run left at the root gets in by one `git add --all`."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no git repository here")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    kept = [path for path in paths if path.is_file() and path.suffix != ".png"]
    assert [str(path) for path in kept if b"\0" in path.read_bytes()] == []


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
