"""Text files with a header that names their columns, in whatever way the fields are parted. Knows no data set."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from morphmlp.data.datasets.lines import Faults


@dataclass(frozen=True)
class Table:
    """A file whose first line names the columns.

    Attributes:
        line: The number of that line.
        header: The names, in small letters.
        delimiter: What parts the fields.
        body: The other lines with their numbers.
    """

    line: int
    header: tuple[str, ...]
    delimiter: str
    body: Sequence[tuple[int, str]]

    def rows(self, faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
        """The lines as cells by column; what isn't such a line is a fault."""
        for line, text in self.body:
            try:
                fields = next(csv.reader([text], delimiter=self.delimiter, strict=True))
            except csv.Error as error:
                faults.add(line, f"unreadable line {text[:120]!r}: {error}")
                continue
            if len(fields) != len(self.header):
                faults.add(
                    line, f"unreadable line {text[:120]!r}: {len(fields)} fields, the header has {len(self.header)}"
                )
                continue
            yield line, dict(zip(self.header, map(str.strip, fields), strict=True))


def as_table(lines: Sequence[tuple[int, str]]) -> Table | None:
    """A file's lines as a table, parted by what its first line holds most of; None where that is one field."""
    if not lines:
        return None
    line, text = lines[0]
    delimiter = max(",;\t ", key=text.count)
    names = tuple(name.strip().strip('"').lower() for name in text.split(delimiter))
    return Table(line, names, delimiter, lines[1:]) if len(names) > 1 else None
