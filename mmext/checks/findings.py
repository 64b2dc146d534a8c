# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Findings of the data checks, and the splits that they are about."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmext.errors import UserError

ERROR, WARNING, NOTE = 'error', 'warning', 'note'
SHOWN = 5  # errors of one message


@dataclass(frozen=True)
class Finding:
    """One thing that a check found in one split.

    Args:
        level: ``'error'``, ``'warning'`` or ``'note'``.
        check: What was looked at, in two or three words.
        split: Name of the split, see :class:`Split`.
        problem: What is wrong, how often, and the first example.
        remedy: What to do about it. Default: nothing.
        count: How many entries have it. Default: 1.
        mended: Whether ``--fix`` mends it. Default: False.
    """

    level: str
    check: str
    split: str
    problem: str
    remedy: str = ''
    count: int = 1
    mended: bool = False


@dataclass(frozen=True)
class Split:
    """Annotations, their images, and what a run does with them.

    Args:
        name: For messages: ``train``, or a place in a config.
        ann_file: COCO's ``instances_*.json``.
        img_dir: Folder that ``file_name`` is relative to.
        classes: Names that are to be found. Default: all of the file.
        masks: Whether masks are learnt or evaluated. Default: False.
        training: Whether the split is trained on. Default: False.
        filter_empty: Whether training skips images without objects.
        min_size: Shorter images are skipped in training, in pixels.
        root: Folder that file names must not leave. Default: ``img_dir``.
        turned: Whether the pictures are turned as EXIF says. Default: True,
            as mmcv reads them.
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
    turned: bool = True

    def holds(self, file_name: str) -> bool:
        """Whether a name in the annotation file stays in the root.

        Decided by the names alone: a link that the user put there may lead
        anywhere.
        """
        root = os.path.abspath(self.root or self.img_dir)
        path = os.path.abspath(self.img_dir / file_name.replace('\\', '/'))
        return os.path.commonpath([root, path]) == root

    def finding(
        self, level: str, check: str, problem: str, *rest, **more
    ) -> Finding:
        """A finding in this split."""
        return Finding(level, check, self.name, problem, *rest, **more)


def require(findings: Iterable[Finding]) -> None:
    """Stops where there is an error among the findings.

    Raises:
        UserError: With all errors, the first few at length.
    """
    errors = [f for f in findings if f.level == ERROR]
    if not errors:
        return
    if len(errors) == 1:
        raise UserError(_line(errors[0]), errors[0].remedy)
    told = [
        f'{i}. {_line(f)}' + (f'\n   -> {f.remedy}' if f.remedy else '')
        for i, f in enumerate(errors[:SHOWN], 1)
    ]
    if len(errors) > SHOWN:
        told.append(f'and {len(errors) - SHOWN} more')
    raise UserError(
        f'{len(errors)} things are wrong with the data:\n' + '\n'.join(told),
        'tools/misc/check_data.py lists all of them; with --fix DIR it writes '
        'mended copies of the annotations.',
    )


def _line(finding: Finding) -> str:
    return f'{finding.split}: {finding.problem}'
