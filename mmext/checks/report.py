# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The result of checking a data set: as a table, and kept for later runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmext.checks.findings import ERROR, LEVELS, Finding, Split
from mmext.checks.image_facts import ImageFacts
from mmext.checks.images import image_paths
from mmext.errors import printable
from mmext.utils.files import Stamp, stamps, write_json
from mmext.utils.machine import cache_dir
from mmext.utils.text import count
from mmext.version import __version__


@dataclass(frozen=True)
class DataReport:
    """What the checks of a data set found. ``str()`` gives it as a table."""

    splits: tuple[Split, ...]
    contents: dict[str, dict[str, Any]]  # annotations by split name
    facts: dict[Path, ImageFacts]  # of the images that were decoded
    missing: frozenset[Path]  # images that do not exist
    stamps: dict[Path, Stamp]  # of the annotation files as they were read
    findings: tuple[Finding, ...] = ()  # errors, then warnings, then notes
    #: Corrected file -> what was done in it, and how often.
    fixed: dict[Path, dict[str, int]] | None = None
    fixed_in: Path | None = None  # the folder of these files
    remaining: tuple[Finding, ...] = ()  # errors in the corrected files

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings with which a run stops if it sees them."""
        return tuple(f for f in self.findings if f.level == ERROR)

    def __str__(self) -> str:
        lines = [*self._split_lines(), *self._count_lines(), '']
        for finding in self.findings:
            fix = ' (--fix corrects it)' if finding.fixable else ''
            lines.append(f'{finding.level}: {finding}{fix}')
            if finding.remedy:
                lines.append(f'  -> {finding.remedy}')
        lines.append(verdict(self.findings))
        if self.fixed == {}:
            lines.append('nothing to correct')
        for file, done in (self.fixed or {}).items():
            lines.append(f'wrote {file}{":" if done else ", unchanged"}')
            lines += [f'  {what}: {number}' for what, number in done.items()]
        lines += [f'still wrong: {finding}' for finding in self.remaining]
        if self.fixed:
            lines.append(self._how_to_use())
        return printable('\n'.join(lines))

    def _how_to_use(self) -> str:
        """Returns how a training uses the corrected files."""
        files = dict(zip(self.splits, self.fixed or {}, strict=False))
        if all(split.name in ('train', 'val') for split in files):
            return f'train on them: mmext train CONFIG --data {self.fixed_in}'
        options = []
        for split, file in files.items():
            options.append(f'{split.name}.ann_file={file.absolute()}')
            stage = split.name.partition('_dataloader')[0]
            if stage != 'train':
                options.append(f'{stage}_evaluator.ann_file={file.absolute()}')
        return f'use them: --cfg-options {" ".join(options)}'

    def _split_lines(self) -> list[str]:
        lines = []
        for split in self.splits:
            content = self.contents[split.name]
            classes = len(split.classes or content['categories'])
            read = sum(p in self.facts for p in image_paths(content, split))
            lines.append(
                f'{split.name}: {count(len(content["images"]), "image")} '
                f'({read} read), '
                f'{count(len(content["annotations"]), "annotation")}, '
                f'{count(classes, "class", "classes")}; '
                f'{split.ann_file}'
            )
        return lines

    def _count_lines(self) -> list[str]:
        """A table of how often each check failed in each split."""
        counts: dict[str, Counter] = defaultdict(Counter)
        level: dict[str, str] = {}
        for finding in self.findings:
            counts[finding.check][finding.split] += finding.count
            level.setdefault(finding.check, finding.level)
        if not counts:
            return []
        names = [split.name for split in self.splits]
        # The first word is enough to tell places in a config apart.
        heads = [re.split('[_.]', name)[0] for name in names]
        width = max(len(check) for check in counts)
        lines = ['', ' ' * (9 + width) + ''.join(f'{h:>9}' for h in heads)]
        for check, per_split in counts.items():
            cells = ''.join(f'{per_split[n] or "-":>9}' for n in names)
            lines.append(f'{level[check]:9}{check:{width}}{cells}')
        return lines


def verdict(findings: Iterable[Finding]) -> str:
    """Returns ``'2 errors, 1 note'``, for example."""
    counts = Counter(finding.level for finding in findings)
    parts = [count(counts[level], level) for level in LEVELS if counts[level]]
    return ', '.join(parts) or 'nothing wrong was found'


def keep(report: DataReport) -> None:
    """Keeps the result of a check of all images for later runs.

    It is void when any file changes: an annotation file, or any image.
    """
    known = dict(report.stamps)
    for split in report.splits:
        for path in image_paths(report.contents[split.name], split):
            fact = report.facts.get(path)
            known[path] = fact.stamp if fact else None
    files = [os.path.abspath(path) for path in known]
    alone = [(s,) for s in report.splits if not s.training]  # for a test
    for splits in {report.splits, *alone}:
        at = {split.name: i for i, split in enumerate(splits)}
        mine = [f for f in report.findings if f.split in at]
        content = {
            'findings': [{**asdict(f), 'split': at[f.split]} for f in mine],
            'files': files,
            'digest': _digest([*known.values()]),
        }
        # Without a cache the next run checks the data again.
        with contextlib.suppress(OSError):
            file = _cache_file(splits)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, content)


def recall(splits: Sequence[Split]) -> list[Finding] | None:
    """Returns the findings that :func:`keep` kept for unchanged files."""
    try:
        content = json.loads(_cache_file(splits).read_text(encoding='utf-8'))
        findings = [
            Finding(**{**entry, 'split': splits[entry['split']].name})
            for entry in content['findings']
        ]
        unchanged = _digest(stamps(content['files'])) == content['digest']
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None
    return findings if unchanged else None


def _digest(content: object) -> str:
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def _cache_file(splits: Sequence[Split]) -> Path:
    """The name depends on the splits, and what is checked in them.

    A folder and a config that uses it name the same splits differently.
    """
    state = [
        replace(
            split,
            name='',
            root=None,
            ann_file=split.ann_file.absolute(),
            img_dir=split.img_dir.absolute(),
        )
        for split in splits
    ]
    return cache_dir() / 'checks' / f'{_digest([__version__, state])}.json'
