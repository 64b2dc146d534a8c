# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A report as sentences and tables: in the terminal, and as files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from mmext.errors import printable
from mmext.evaluation.report.table import Table, in_markdown
from mmext.utils.files import replacing


class Document(ABC):
    """What all reports share; a subclass gives the sentences and tables."""

    title: str
    warnings: Sequence[str] = ()

    @abstractmethod
    def verdicts(self) -> list[tuple[str, list[str]]]:
        """Returns (heading, sentences), the most important ones first."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """Returns the tables, the most important one first."""

    def details(self) -> list[Table]:
        """Returns the tables that are too wide for a terminal."""
        return []

    def print(self, console: Console | None = None) -> None:
        """Prints the tables and the sentences, by default in the terminal."""
        console = console or Console()
        for table in self.tables():
            table.print(console)
        self.print_verdicts(console)

    def print_verdicts(self, console: Console) -> None:
        """Prints the sentences and the warnings."""
        for title, lines in self.verdicts():
            console.print(escape(printable(title)), style='bold')
            for line in lines:
                style = 'yellow' if line.startswith('Warning') else ''
                text = Padding(Text(printable(line), style), (0, 0, 0, 2))
                console.print(text, highlight=False)
        for line in self.warnings:
            line = escape(f'Warning: {printable(line)}')
            console.print(line, style='yellow')

    def markdown(self) -> str:
        """Returns the report as one Markdown document."""
        parts = [f'# {in_markdown(self.title)}\n']
        for title, lines in self.verdicts():
            parts.append(f'## {in_markdown(title)}\n')
            items = [f'- {in_markdown(line)}' for line in lines]
            parts.append('\n'.join(items) + '\n')
        parts += [f'- Warning: {in_markdown(w)}\n' for w in self.warnings]
        parts += [t.markdown() for t in (*self.tables(), *self.details())]
        return '\n'.join(parts)

    def write_files(self, folder: str | Path, html: str) -> list[Path]:
        """Writes the page, ``report.md``, and tables as CSV and TeX.

        Returns the files, ``report.html`` first.
        """
        folder = Path(folder)
        files = {'report.html': html, 'report.md': self.markdown()}
        for i, table in enumerate((*self.tables(), *self.details()), 1):
            name = re.sub(r'\W+', '-', table.title.lower()).strip('-')[:100]
            if f'{name}.csv' in files:  # names that differ in punctuation
                name += f'-{i}'
            files[f'{name}.csv'] = table.csv()
            files[f'{name}.tex'] = table.latex()
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with replacing(folder / name) as part:
                part.write_text(text, 'utf-8', errors='backslashreplace')
        return [folder / name for name in files]
