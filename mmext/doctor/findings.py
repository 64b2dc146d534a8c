# Licensed under the Apache License, Version 2.0. See LICENSE.
"""One line of the doctor's table, and the table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

OK, NOTE, PROBLEM = 'ok', 'note', 'problem'


@dataclass(frozen=True)
class Finding:
    """What was looked at and how it is.

    Args:
        part: Heading that it stands under.
        name: What was looked at.
        state: ``'ok'``, ``'note'`` or ``'problem'``.
        value: What was seen.
        remedy: The line that mends a problem. Default: none.
    """

    part: str
    name: str
    state: str
    value: str
    remedy: str = ''


def as_text(findings: Iterable[Finding]) -> str:
    """The table, and below it every problem with what mends it."""
    findings = list(findings)
    wide = max(len(f.name) for f in findings)
    lines, part = [], None
    for f, below in zip(findings, [*findings[1:], None], strict=True):
        if f.part != part:
            lines += ['', f.part]
            part = f.part
        head = f'  {f.state:8} {f.name:{wide}}  '
        lines += textwrap.wrap(
            f.value,
            width=100,
            initial_indent=head,
            subsequent_indent=' ' * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [head.rstrip()]
        # Notes in a row with one remedy, as of disks, get it once.
        if (
            f.state == NOTE
            and f.remedy
            and f.remedy != getattr(below, 'remedy', None)
        ):
            lines.append(' ' * len(head) + f'-> {f.remedy}')
    problems = [f for f in findings if f.state == PROBLEM]
    lines.append('')
    # One line often mends many things: it is said once.
    for remedy in dict.fromkeys(f.remedy for f in problems):
        lines += [
            f'problem: {f.part}, {f.name}: {f.value}'
            for f in problems
            if f.remedy == remedy
        ]
        lines += [f'  -> {remedy}', '']
    many = f'{len(problems)} problem{"s" * (len(problems) != 1)}'
    lines.append(many if problems else 'No problem was found.')
    return '\n'.join(lines[1:])
