# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A table as plain text, Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class Table:
    """A table of text; the first column is left-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ''
    notes: Sequence[str] = ()  # lines below the table

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
            [str(c).replace('|', r'\|') for c in row]
            for row in (self.header, *self.rows)
        ]
        widths = [max(3, *map(len, col)) for col in zip(*cells, strict=True)]
        lines = [f'**{self.title}**', ''] if self.title else []
        rule = ['-' * (w - 1) + ':' for w in widths]
        rule[0] = '-' * widths[0]
        for row in (cells[0], rule, *cells[1:]):
            lines.append(f'| {_join(row, widths)} |')
        if self.notes:
            lines += ['', *(f'{note}  ' for note in self.notes)]
        return '\n'.join(lines) + '\n'

    def csv(self) -> str:
        """Returns comma-separated values: the header, then the rows."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator='\n')
        writer.writerow(self.header)
        writer.writerows(self.rows)
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
        """Prints the table with its notes below it; no number wraps."""
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table as RichTable

        grid = RichTable(
            title=self.title or None,
            title_justify='left',
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for i, column in enumerate(zip(self.header, *self.rows, strict=True)):
            words = ' '.join(map(str, column)).split()
            grid.add_column(
                escape(column[0]),
                justify='left' if i == 0 else 'right',
                min_width=max(map(len, words), default=0),
            )
        for row in self.rows:
            grid.add_row(*(escape(str(cell)) for cell in row))
        console.print(grid, crop=False)
        for note in self.notes:
            console.print(escape(note), style='dim', highlight=False)
        console.print()


def _join(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        str(c).ljust(w) if i == 0 else str(c).rjust(w)
        for i, (c, w) in enumerate(zip(row, widths, strict=True))
    ]
    return ' | '.join(cells).rstrip()
