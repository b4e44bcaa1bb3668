"""What the documents tell a reader to run, open or read exists, and their Python compiles."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from run_here import run_here

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("*.md")])
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SHELL_LANGUAGES = {"", "bash", "sh", "shell", "console", "text"}


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return FENCE.findall(text)


def code_lines(text: str) -> list[str]:
    """Lines of shell blocks, continuations joined, and inline code; comments and prompts left out."""
    blocks = [content for language, content in code_blocks(text) if language in SHELL_LANGUAGES]
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = [re.sub(r"^\s*(\$ )?", "", line) for line in joined.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return [shlex.join(shlex.split(line, comments=True)) for line in [*lines, *inline] if is_command(line)]


def is_command(line: str) -> bool:
    return re.match(r"((\w+=\S+ )*)((\S*/)?python3? \S*pipelines/\S+\.py|make( |$))", line.strip()) is not None


def commands(text: str) -> list[list[str]]:
    """The `python pipelines/...` and `make ...` command lines of a page, as words without leading variables."""
    found = []
    for line in code_lines(text):
        for part in re.split(r" '?(?:&&|\||;|>)'? ", line):
            words = shlex.split(part)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if words and is_command(shlex.join(words)):
                found.append(words)
    return found


@cache
def make_targets() -> frozenset[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))


@cache
def help_text(script: str, *words: str) -> str:
    """What a pipeline prints for `--help`, after the leading words that choose its subcommand."""
    shown = run_here(ROOT / script, *words, "--help", cwd=ROOT)
    assert shown.returncode == 0, f"{shlex.join([script, *words])} --help: {shown.stderr}"
    return shown.stdout


def command_faults(words: list[str]) -> list[str]:
    """What is wrong with a command line, without running it."""
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        return [f"make has no target {target}" for target in targets if target not in make_targets()]
    script, *arguments = words[1:]
    if not (ROOT / script).is_file():
        return [f"{script} does not exist"]
    faults = [
        f"{word} does not exist"
        for word in arguments
        if word.startswith(("experiments/", "pipelines/", "tests/", "docs/")) and not (ROOT / word).exists()
    ]
    subcommand = [word for word in arguments[:1] if re.fullmatch(r"[a-z][a-z0-9-]*", word)]
    flags = [word.split("=")[0] for word in arguments if re.match(r"--[a-z]", word)]
    known = re.findall(r"--[a-zA-Z][\w.-]*", help_text(script, *subcommand)) if flags or subcommand else []
    return faults + [f"{script} has no option {flag}" for flag in flags if flag not in known]


def broken_links(page: Path) -> list[str]:
    """Relative link targets of a page that lead nowhere."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    targets = [*re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", text), *re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)]
    paths = [target.split("#")[0] for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:|#", target)]
    return [path for path in paths if path and not (page.parent / path).exists()]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_of_a_page_names_what_exists(page):
    lines = commands(page.read_text(encoding="utf-8"))
    assert [f"{shlex.join(words)}: {fault}" for words in lines for fault in command_faults(words)] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_of_a_page_leads_somewhere(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_of_a_page_compile(page):
    for language, content in code_blocks(page.read_text(encoding="utf-8")):
        if language in {"python", "py"}:
            compile(content, page_id(page), "exec")


def test_a_written_readme_shows_commands():
    text = README.read_text(encoding="utf-8")
    assert not text.strip() or commands(text), "README.md has text but no `make` or `python pipelines/...` command"


def test_the_header_command_of_every_experiment_names_that_file():
    for experiment in sorted((ROOT / "experiments").rglob("*.yaml")):
        named = re.findall(r"experiments/[\w./-]+\.yaml", experiment.read_text(encoding="utf-8"))
        assert all((ROOT / path).exists() for path in named), f"{page_id(experiment)} names {named}"


def test_commands_are_found_in_blocks_and_inline_code():
    page = """Run `make demo` first; `makefile` is no command.

```bash
# make nothing
$ python pipelines/prepare.py demo \\
    --output build/demo
PORT=5001 make ui && .venv/bin/python pipelines/tables.py --dataset demo
```
"""
    assert commands(page) == [
        ["python", "pipelines/prepare.py", "demo", "--output", "build/demo"],
        ["make", "ui"],
        [".venv/bin/python", "pipelines/tables.py", "--dataset", "demo"],
        ["make", "demo"],
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("make dmeo", "make has no target dmeo"),
        ("python pipelines/nothing_here.py --config x.yaml", "pipelines/nothing_here.py does not exist"),
    ],
)
def test_a_command_that_names_nothing_is_a_fault(line, fault):
    assert command_faults(shlex.split(line)) == [fault]


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#x) [b](gone.md) [c](https://example.org/gone.md) `[d](code.md)` [e](#here)")
    assert broken_links(page) == ["gone.md"]
