# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A table as plain text, Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmext.errors import printable
from mmext.utils.text import fold, pieces

if TYPE_CHECKING:
    from rich.console import Console

_LATEX = {
    '\\': r'\textbackslash{}',
    '&': r'\&',
    '%': r'\%',
    '$': r'\$',
    '#': r'\#',
    '_': r'\_',
    '{': r'\{',
    '}': r'\}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '±': r'$\pm$',
    '−': '$-$',
    '–': '--',
    '<': '$<$',
    '>': '$>$',
}
#: A number, or the ``-`` of a missing one.
_NUMBER = re.compile(r'-|[+-]?\d+(\.\d*)?(e[+-]?\d+)?( ?%)?')
_GAP = 2  # spaces between columns in the terminal


@dataclass(frozen=True)
class Table:
    """A table of text; the first column is left-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ''
    notes: Sequence[str] = ()  # lines below the table

    def __post_init__(self) -> None:
        # A name in a file of others may hold a line break or a command.
        [title] = _shown([self.title])
        object.__setattr__(self, 'title', title)
        for name in ('header', 'notes'):
            object.__setattr__(self, name, _shown(getattr(self, name)))
        object.__setattr__(self, 'rows', [_shown(row) for row in self.rows])

    def text(self) -> str:
        """Returns aligned columns for a terminal or a log."""
        columns = zip(self.header, *self.rows, strict=True)
        widths = [max(map(len, column)) for column in columns]
        lines = [self.title] if self.title else []
        lines.append(_join(self.header, widths))
        lines.append('-+-'.join('-' * w for w in widths))
        lines += [_join(row, widths) for row in self.rows]
        return '\n'.join([*lines, *self.notes])

    def markdown(self) -> str:
        """Returns a GitHub table, with columns aligned in the source too."""
        cells = [
            [in_markdown(c).replace('|', r'\|') for c in row]
            for row in (self.header, *self.rows)
        ]
        widths = [max(3, *map(len, col)) for col in zip(*cells, strict=True)]
        lines = [f'**{in_markdown(self.title)}**', ''] if self.title else []
        rule = ['-' * (w - 1) + ':' for w in widths]
        rule[0] = '-' * widths[0]
        for row in (cells[0], rule, *cells[1:]):
            lines.append(f'| {_join(row, widths)} |')
        if self.notes:
            lines += ['', *(f'{in_markdown(n)}  ' for n in self.notes)]
        return '\n'.join(lines) + '\n'

    def csv(self) -> str:
        """Returns comma-separated values: the header, then the rows."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator='\n')
        for row in (self.header, *self.rows):
            writer.writerow(map(in_csv, row))
        return out.getvalue()

    def latex(self) -> str:
        """Returns a tabular that needs ``\\usepackage{booktabs}``."""
        escapes = str.maketrans(_LATEX)
        header, *rows = (
            ' & '.join(str(cell).translate(escapes) for cell in row) + r' \\'
            for row in (self.header, *self.rows)
        )
        lines = [
            r'\begin{tabular}{l' + 'r' * (len(self.header) - 1) + '}',
            r'\toprule',
            header,
            r'\midrule',
            *rows,
            r'\bottomrule',
            r'\end{tabular}',
            *(f'% {note}' for note in self.notes),
        ]
        return '\n'.join(lines) + '\n'

    def print(self, console: Console) -> None:
        """Prints the table with its notes below it.

        No number wraps. Columns that do not fit into the terminal follow in a
        second part, with the first column again.
        """
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table as RichTable

        for number, part in enumerate(self._parts(console.width)):
            if number:
                console.print()
            grid = RichTable(
                title=None if number else escape(self.title) or None,
                title_justify='left',
                box=SIMPLE_HEAD,
                show_edge=False,
                pad_edge=False,
                padding=(0, 1, 0, 0),
            )
            for i, width in part.items():
                grid.add_column(
                    escape(fold(self.header[i], width)),
                    justify='right' if i else 'left',
                    vertical='bottom' if i else 'top',
                    width=width,
                    overflow='fold',
                )
            for row in self.rows:
                grid.add_row(*(escape(str(row[i])) for i in part))
            console.print(grid)
        for note in self.notes:
            console.print(escape(note), style='dim', highlight=False)
        console.print()

    def _parts(self, width: int) -> list[dict[int, int]]:
        """Columns that fit beside each other, with their widths."""
        from rich.cells import cell_len

        columns = [
            [str(row[i]) for row in self.rows] for i in range(len(self.header))
        ]
        longest = [max(map(cell_len, column), default=0) for column in columns]
        gaps = _GAP * (len(columns) - 1)
        for split in (lambda name: [name], pieces):
            widths = [
                max([cells, *(cell_len(s.rstrip()) for s in split(name))])
                for cells, name in zip(longest, self.header, strict=True)
            ]
            if sum(widths) + gaps <= width:
                break
        else:
            # The names of the rows may wrap between words.
            words = ' '.join([self.header[0], *columns[0]]).split()
            least = max(map(cell_len, words), default=1)
            left = width - gaps - sum(widths[1:])
            if left >= least:
                widths[0] = left
            elif len(widths) > 1:
                widths[0] = min(widths[0], least, max(20, width // 3))
        parts = [{0: widths[0]}]
        for i, wide in enumerate(widths[1:], 1):
            used = sum(w + _GAP for w in parts[-1].values())
            if len(parts[-1]) > 1 and used + wide > width:
                parts.append({0: widths[0]})
            parts[-1][i] = max(1, min(wide, width - widths[0] - _GAP))
        return parts


def _shown(texts: Sequence[object]) -> list[str]:
    return [printable(text).replace('\n', ' ') for text in texts]


def in_markdown(text: str) -> str:
    """Returns a line for Markdown in which names are no HTML and no links."""
    text = printable(text).replace('\n', ' ')
    text = re.sub(r'<(?=[A-Za-z/!?])', '&lt;', text)
    return re.sub(r'\](?=[(:\[])', '&#93;', text)


def in_csv(cell: object) -> str:
    """Returns a cell that a spreadsheet does not compute as a formula."""
    cell = printable(cell)
    if cell[:1] in ('=', '+', '-', '@', '\t') and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _join(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        str(c).ljust(w) if i == 0 else str(c).rjust(w)
        for i, (c, w) in enumerate(zip(row, widths, strict=True))
    ]
    return ' | '.join(cells).rstrip()
