"""A table as text: Markdown, CSV or LaTeX.

Markdown and LaTeX leave out the columns that no row fills, and mark scores of different test items. A CSV has every
column and plain numbers, for programs; its column `test ids` says which items they are of.
"""

import re
from typing import Literal

import pandas as pd
from pylatexenc.latexencode import UnicodeToLatexEncoder
from tabulate import tabulate

from morphmlp.reporting.tables.cells import Table

Style = Literal["markdown", "csv", "latex"]

TEXT_COLUMNS = {
    *("model", "views", "fingerprint", "commit", "date", "run", "test ids", "experiment", "start", "temporal", "test"),
    *("source", "kind", "pretrained on", "claim", "of", "numbers", "claimed", "computed", "holds", "measured here"),
}
_NOT_IN_T1 = re.compile(
    "[^ -~\u00a0-\u0148\u014a-\u017e\u0391-\u03a9\u03b1-\u03c9"
    "\u2012-\u2016\u2018-\u2026\u20ac\u2190-\u2193\u2212\u2248\u2260\u2264\u2265]"
)
"""What LaTeX may have no glyph for without further packages: all but European letters, dashes and the like."""
_TO_LATEX = UnicodeToLatexEncoder(unknown_char_policy="unihex", unknown_char_warning=False)


def render(table: Table, *, style: Style) -> str:
    """A table and its notes as text; LaTeX needs the package booktabs."""
    if style == "csv":
        return table.cells.to_csv(index=False)
    cells = without_empty(table.cells)
    if style == "latex":
        return _latex(table, cells)
    shown = _marked(table, cells, "{} `{}`")
    # Tabulate rejects alignments of columns that an empty table doesn't have.
    rows = [[_pipe_safe(cell) for cell in row] for row in shown.to_numpy().tolist()] or [[""] * len(cells.columns)]
    align = ["left" if name in TEXT_COLUMNS else "right" for name in cells.columns]
    text = tabulate(rows, headers=list(cells.columns), tablefmt="pipe", colalign=align, disable_numparse=True)
    return "\n\n".join([text, *table.notes]) + "\n"


def without_empty(cells: pd.DataFrame) -> pd.DataFrame:
    """A table without the columns that no row fills; one without rows keeps all."""
    return cells.loc[:, (cells != "").any()] if len(cells) else cells


def _marked(table: Table, cells: pd.DataFrame, form: str) -> pd.DataFrame:
    """The cells with the rows' letters at their scores."""
    if not table.marks:
        return cells
    shown = cells.copy()
    for name in table.marked:
        if name in shown.columns:
            column = zip(shown[name], (table.marks.get(row) for row in range(len(shown))), strict=True)
            shown[name] = [form.format(cell, letter) if cell and letter else cell for cell, letter in column]
    return shown


def _pipe_safe(cell: str) -> str:
    """A cell that neither ends a Markdown cell nor a line; most are."""
    return " ".join(cell.replace("|", "\\|").split())


def to_latex(text: str) -> str:
    """A text in which nothing is a command, in ASCII; `[` and `*` would be read with the end of the line before.

    It compiles with font encoding T1. What that may lack becomes its number, as in `<U+65E5>`.
    """
    known = _NOT_IN_T1.sub(lambda found: f"<U+{ord(found[0]):04X}>", " ".join(text.split()))
    encoded: str = _TO_LATEX.unicode_to_latex(known)
    return "{}" + encoded if encoded.startswith(("[", "*")) else encoded


def _latex(table: Table, cells: pd.DataFrame) -> str:
    safe = cells.map(to_latex).rename(columns=to_latex)
    named = Table(cells=safe, marks=table.marks, marked=tuple(map(to_latex, table.marked)))
    shown = _marked(named, safe, "{}\\textsuperscript{{{}}}")
    align = "".join("l" if name in TEXT_COLUMNS else "r" for name in cells.columns)
    lines = [" & ".join(row) + r" \\" for row in [list(shown.columns), *shown.to_numpy().tolist()]]
    body = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    notes = [rf"\par\smallskip{{\footnotesize {to_latex(note)}\par}}" for note in table.notes]
    return "\n".join([*body, r"\end{tabular}", *notes]) + "\n"
