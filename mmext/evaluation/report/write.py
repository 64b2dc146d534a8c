# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Writes a report into a folder: Markdown, CSV, LaTeX, one HTML page."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from mmext.evaluation.report.content import Report
from mmext.evaluation.report.page import html_page


def write_report(
    report: Report, folder: str | Path, images: str | Path | None = None
) -> list[Path]:
    """Writes ``report.md``, ``report.html``, and each table as CSV and TeX.

    Files appear whole or not at all.

    Args:
        report: What to write.
        folder: Made where it is missing.
        images: Folder of the test images. Default: what the config says.
    """
    folder = Path(folder)
    files = {
        'report.md': markdown(report),
        'report.html': html_page(report, images and Path(images)),
    }
    for i, table in enumerate((*report.tables(), *report.details()), 1):
        name = re.sub(r'\W+', '-', table.title.lower()).strip('-')
        if f'{name}.csv' in files:  # names that differ in signs only
            name += f'-{i}'
        files[f'{name}.csv'] = table.csv()
        files[f'{name}.tex'] = table.latex()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.writing-', dir=folder) as part:
        for name, text in files.items():
            Path(part, name).write_text(text, encoding='utf-8')
        for name in files:
            os.replace(Path(part, name), folder / name)
    return [folder / name for name in files]


def markdown(report: Report) -> str:
    """The report as one Markdown document."""
    parts = [f'# {" / ".join(report.names)}\n']
    for title, lines in report.verdicts():
        parts.append(f'## {title}\n')
        parts.append('\n'.join(f'- {line}' for line in lines) + '\n')
    parts += [f'- Warning: {w}\n' for w in report.warnings]
    tables = (*report.tables(), *report.details())
    parts += [table.markdown() for table in tables]
    return '\n'.join(parts)
