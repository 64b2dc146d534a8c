# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Prints a report in the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mmext.evaluation.report.report import Report
from mmext.evaluation.report.table import Table


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints a table with its notes below it.

    Args:
        table: The table.
        console: Where to print. Default: the terminal.
    """
    console = console or Console()
    grid = RichTable(
        title=table.title or None,
        title_justify='left',
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for i, column in enumerate(zip(table.header, *table.rows, strict=True)):
        words = ' '.join(map(str, column)).split()
        grid.add_column(
            escape(column[0]),
            justify='left' if i == 0 else 'right',
            min_width=max(map(len, words), default=0),  # numbers do not wrap
        )
    for row in table.rows:
        grid.add_row(*(escape(str(cell)) for cell in row))
    console.print(grid, crop=False)
    for note in table.notes:
        console.print(escape(note), style='dim', highlight=False)
    console.print()


def print_report(report: Report, console: Console | None = None) -> None:
    """Prints all tables, then the sentences; see `Report.print`."""
    console = console or Console()
    for table in report.tables():
        print_table(table, console)
    for title, lines in report.verdicts():
        console.print(escape(title), style='bold')
        for line in lines:
            style = 'yellow' if line.startswith('Warning') else ''
            console.print(f'  {escape(line)}', style=style, highlight=False)
    for line in report.warnings:
        console.print(escape(f'Warning: {line}'), style='yellow')
