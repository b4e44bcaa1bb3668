import csv
import io
import shutil
import subprocess

import pandas as pd
import pytest

from morphmlp.reporting.tables.cells import Table
from morphmlp.reporting.tables.render import render

MARKED = Table(
    cells=pd.DataFrame(
        [("one", "78.2", "", "19761:1f0c"), ("two", "79.0", "", "19907:77b1"), ("none", "", "", "")],
        columns=["model", "measured top-1", "run", "test ids"],
    ),
    marks={0: "a", 1: "b"},
    marked=("measured top-1", "measured top-5"),
    notes=("a and b differ.",),
)
ODD = "[x] a_b 50% & #1 $x$ ~^ \\cmd{} <é> | 日本 → \n*"


def test_markdown_has_marks_and_notes_and_no_empty_columns():
    assert render(MARKED, style="markdown").splitlines() == [
        "| model   |   measured top-1 | test ids   |",
        "|:--------|-----------------:|:-----------|",
        "| one     |         78.2 `a` | 19761:1f0c |",
        "| two     |         79.0 `b` | 19907:77b1 |",
        "| none    |                  |            |",
        "",
        "a and b differ.",
    ]


def test_a_csv_has_every_column_and_plain_numbers():
    rows = list(csv.DictReader(io.StringIO(render(MARKED, style="csv"))))
    assert rows == MARKED.cells.to_dict("records")


def test_latex_is_booktabs_with_marks_and_notes():
    assert render(MARKED, style="latex").splitlines() == [
        r"\begin{tabular}{lrl}",
        r"\toprule",
        r"model & measured top-1 & test ids \\",
        r"\midrule",
        r"one & 78.2\textsuperscript{a} & 19761:1f0c \\",
        r"two & 79.0\textsuperscript{b} & 19907:77b1 \\",
        r"none &  &  \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip{\footnotesize a and b differ.\par}",
    ]


@pytest.mark.parametrize("style", ["markdown", "csv", "latex"])
def test_a_table_without_rows_renders_its_header(style):
    assert "experiment" in render(Table(cells=pd.DataFrame(columns=["experiment", "top-1"], dtype=str)), style=style)


def test_any_text_is_one_cell_of_markdown():
    _, _, line = render(Table(cells=pd.DataFrame([(ODD, "2")], columns=["a", "b"])), style="markdown").splitlines()
    assert line.replace("\\|", "").count("|") == 3


def test_any_text_is_escaped_for_latex_in_ascii():
    text = render(Table(cells=pd.DataFrame([(ODD, "2")], columns=["a", "b"])), style="latex")
    assert text.isascii()
    [row] = [line for line in text.splitlines() if line.endswith(r"& 2 \\")]
    assert row.startswith(r"{}[x] a\_b 50\% \& \#1 \$x\$ {\textasciitilde}{\textasciicircum} {\textbackslash}cmd\{\}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex isn't installed")
def test_latex_compiles(tmp_path):
    every = "".join(chr(code) for code in (*range(0xD800), 0x1F389))
    names = [ODD, *(every[start : start + 40] for start in range(0, 0x2400, 40)), every[-40:]]
    cells = pd.DataFrame([(name, "78.2") for name in names], columns=["a & b", "top-1"])
    body = render(Table(cells=cells, marks={0: "a"}, marked=("top-1",)), style="latex")
    used = "\\usepackage[T1]{fontenc}\\usepackage{booktabs}"
    page = f"\\documentclass{{article}}{used}\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
