# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A table, and the ways to write it: plain text, Markdown, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

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
    """Cells are text already; the first column is left-aligned.

    Args:
        header: The columns' names.
        rows: One sequence of cells a row, as long as the header.
        title: What the table shows. Default: nothing.
        notes: Lines under the table. Default: none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ''
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Aligned columns for a terminal or a log."""
        widths = [max(map(len, column)) for column in self._columns()]
        lines = [self.title] if self.title else []
        lines.append(_join(self.header, widths))
        lines.append('-+-'.join('-' * w for w in widths))
        lines += [_join(row, widths) for row in self.rows]
        return '\n'.join([*lines, *self.notes])

    def markdown(self) -> str:
        """A GitHub table, its columns aligned in the source too."""
        cells = [
            [str(c).replace('|', r'\|') for c in row]
            for row in (self.header, *self.rows)
        ]
        widths = [max(3, *map(len, col)) for col in zip(*cells, strict=True)]
        lines = [f'**{self.title}**', ''] if self.title else []
        rule = [
            '-' * w if i == 0 else '-' * (w - 1) + ':'
            for i, w in enumerate(widths)
        ]
        for row in (cells[0], rule, *cells[1:]):
            lines.append(f'| {_join(row, widths)} |')
        if self.notes:
            lines += ['', *(f'{note}  ' for note in self.notes)]
        return '\n'.join(lines) + '\n'

    def csv(self) -> str:
        """Comma-separated values with one header line; no notes."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator='\n')
        writer.writerow(self.header)
        writer.writerows(self.rows)
        return out.getvalue()

    def latex(self) -> str:
        """A booktabs tabular; needs ``\\usepackage{booktabs}``."""
        lines = [
            r'\begin{tabular}{l' + 'r' * (len(self.header) - 1) + '}',
            r'\toprule',
            ' & '.join(map(latex_escape, self.header)) + r' \\',
            r'\midrule',
            *(' & '.join(map(latex_escape, r)) + r' \\' for r in self.rows),
            r'\bottomrule',
            r'\end{tabular}',
        ]
        lines += [f'% {note}' for note in self.notes]
        return '\n'.join(lines) + '\n'

    def _columns(self) -> list[tuple[str, ...]]:
        return list(zip(self.header, *self.rows, strict=True))


def latex_escape(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return ''.join(_LATEX.get(c, c) for c in str(text))


def _join(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        str(c).ljust(w) if i == 0 else str(c).rjust(w)
        for i, (c, w) in enumerate(zip(row, widths, strict=True))
    ]
    return ' | '.join(cells).rstrip()
