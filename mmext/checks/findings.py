# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Findings of the data checks, and the splits that they are about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

from mmext.errors import UserError, printable
from mmext.utils.files import stays_inside
from mmext.utils.text import sentences

ERROR, WARNING, NOTE = 'error', 'warning', 'note'
LEVELS = (ERROR, WARNING, NOTE)
FIX = 'mmext check-data --fix DIR writes a corrected copy'
SHOWN = 5  # errors in one message
# Share of the entries with a problem from which it is systematic.
SUSPICIOUS = 0.2


@dataclass(frozen=True)
class Finding:
    """One problem that a check found in one split.

    Args:
        level: ``'error'``, ``'warning'`` or ``'note'``.
        check: What was checked, in two or three words.
        split: Name of the split, see :class:`Split`.
        problem: What is wrong, how often, and the first example.
        remedy: What to do about it. Default: nothing.
        count: Number of entries that have the problem. Default: 1.
        fixable: Whether ``--fix`` corrects it. Default: False.
    """

    level: str
    check: str
    split: str
    problem: str
    remedy: str = ''
    count: int = 1
    fixable: bool = False

    def __str__(self) -> str:
        return printable(f'{self.split}: {self.problem}')


@dataclass(frozen=True)
class Split:
    """An annotation file, its images, and what a run does with them.

    Args:
        name: For messages: ``train``, or a place in a config.
        ann_file: A file such as COCO's ``instances_*.json``.
        img_dir: Folder that ``file_name`` is relative to.
        classes: Names of the classes to detect. Default: all of the file.
        masks: Whether masks are learned or evaluated. Default: False.
        training: Whether the split is trained on. Default: False.
        filter_empty: Whether training skips images without objects.
        min_size: Training skips images with a side below this, in pixels.
        root: Folder that file names must not leave. Default: ``img_dir``.
        color_type: How mmcv's ``LoadImageFromFile`` decodes images. Default:
            ``'color'``.
    """

    name: str
    ann_file: Path
    img_dir: Path
    classes: tuple[str, ...] = ()
    masks: bool = False
    training: bool = False
    filter_empty: bool = False
    min_size: int = 0
    root: Path | None = None
    color_type: str = 'color'

    @property
    def turned(self) -> bool:
        """Whether images are turned by their EXIF tag when they are read."""
        return self.color_type in ('color', 'grayscale')

    def holds(self, file_name: str) -> bool:
        """Returns whether a name in the annotation file stays in the root.

        Only names count: a symbolic link in the folder may lead anywhere.
        """
        path = self.img_dir / file_name.replace('\\', '/')
        return stays_inside(path, self.root or self.img_dir)

    def finding(
        self, level: str, check: str, problem: str, *args: Any, **kwargs: Any
    ) -> Finding:
        """Returns a finding in this split; see :class:`Finding`."""
        return Finding(level, check, self.name, problem, *args, **kwargs)

    error = partialmethod(finding, ERROR)
    warning = partialmethod(finding, WARNING)
    note = partialmethod(finding, NOTE)


def require(findings: Iterable[Finding]) -> None:
    """Raises one `UserError` with all errors, the first of them in full."""
    errors = [f for f in findings if f.level == ERROR]
    if not errors:
        return
    if len(errors) == 1:
        fix = f'{FIX}.' if errors[0].fixable else ''
        raise UserError(str(errors[0]), sentences(errors[0].remedy, fix))
    lines = [f'{len(errors)} things are wrong with the data:']
    for i, finding in enumerate(errors[:SHOWN], 1):
        lines.append(f'{i}. {finding}')
        if finding.remedy:
            lines.append(f'   -> {finding.remedy}')
    if len(errors) > SHOWN:
        lines.append(f'and {len(errors) - SHOWN} more')
    raise UserError(
        '\n'.join(lines),
        'mmext check-data lists all of them. '
        + (f'{FIX}.' if any(f.fixable for f in errors) else ''),
    )
