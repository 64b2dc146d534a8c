# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A line of the doctor's table, and the table."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from mmext.utils.text import count

OK, NOTE, PROBLEM = 'ok', 'note', 'problem'


@dataclass(frozen=True)
class Result:
    """The result of one check."""

    part: str  # the heading of the table that it belongs to
    name: str
    state: str
    value: str
    remedy: str = ''


def as_text(results: Iterable[Result]) -> str:
    """Returns the table, and below it all problems with their remedies."""
    results = list(results)
    width = max(len(r.name) for r in results)
    columns = min(100, shutil.get_terminal_size((100, 24)).columns)
    lines, part = [], None
    for result, following in zip(results, [*results[1:], None], strict=True):
        if result.part != part:
            part = result.part
            lines += ['', part]
        head = f'  {result.state:8} {result.name:{width}}  '
        lines += textwrap.wrap(
            result.value,
            width=columns,
            initial_indent=head,
            subsequent_indent=' ' * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [head.rstrip()]
        # Notes in a row can have the same remedy, such as those of disks.
        same = following is not None and following.remedy == result.remedy
        if result.state == NOTE and result.remedy and not same:
            lines.append(' ' * len(head) + f'-> {result.remedy}')
    problems = [r for r in results if r.state == PROBLEM]
    lines.append('')
    # One remedy often fixes many problems.
    for remedy in dict.fromkeys(r.remedy for r in problems):
        lines += [
            f'problem: {r.part}, {r.name}: {r.value}'
            for r in problems
            if r.remedy == remedy
        ]
        lines += [f'  -> {remedy}', '']
    total = count(len(problems), 'problem')
    lines.append(total if problems else 'No problem was found.')
    return '\n'.join(lines[1:])
