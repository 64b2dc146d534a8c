# Licensed under the Apache License, Version 2.0. See LICENSE.
"""All checks of the splits of a data set, singly and against each other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmext.checks.annotations import check_annotations
from mmext.checks.classes import used_names
from mmext.checks.findings import LEVELS, Finding, Split
from mmext.checks.image_facts import Facts, read_images
from mmext.checks.images import (
    Paths,
    check_images,
    check_presence,
    image_paths,
    others,
)
from mmext.checks.report import DataReport
from mmext.datasets.coco import read_coco
from mmext.errors import did_you_mean
from mmext.utils.files import stamp
from mmext.utils.text import sentences, some

SAMPLE = 32  # images of a split that are decoded before a run
STAT_LIMIT = 20_000  # files of a split that are looked for before a run


def check_splits(
    splits: Sequence[Split],
    every_image: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> DataReport:
    """Checks splits singly and against each other; training data come first.

    A sample of the images is decoded, or every image, in ``workers`` threads.
    """
    stamps = {split.ann_file: stamp(split.ann_file) for split in splits}
    contents = {
        split.name: read_coco(split.ann_file, repeated_names=True)
        for split in splits
    }
    findings: list[Finding] = []
    missing: set[Path] = set()
    wanted: list[Path] = []
    paths = {}
    for split in splits:
        findings += check_annotations(contents[split.name], split)
        entries = paths[split.name] = image_paths(contents[split.name], split)
        if not every_image and len(entries) > STAT_LIMIT:
            entries = {p: entries[p] for p in _spread([*entries], SAMPLE)}
        found, absent = check_presence(entries, split)
        findings += found
        missing |= absent
        present = [path for path in entries if path not in absent]
        wanted += present if every_image else _spread(present, SAMPLE)
    facts = read_images(wanted, workers, progress)
    for split in splits:
        findings += check_images(facts, paths[split.name], split)
    report = DataReport(
        tuple(splits), contents, facts, frozenset(missing), stamps
    )
    findings += _check_between(report, paths)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return replace(report, findings=tuple(findings))


def _spread(paths: list[Path], number: int) -> list[Path]:
    """Returns paths at even distances from the first to the last."""
    at = np.linspace(0, len(paths) - 1, min(number, len(paths)))
    return [paths[i] for i in np.unique(at.round().astype(int))]


def _check_between(
    report: DataReport, paths: Mapping[str, Paths]
) -> Iterator[Finding]:
    """Checks the other splits against the training data."""
    training = [s for s in report.splits if s.training]
    ours = {p for s in training for p in paths[s.name]} - report.missing
    for split in report.splits:
        if not training or split.training:
            continue
        yield from check_order(training[0], split, report.contents)
        theirs = paths[split.name].keys() - report.missing
        pairs = list(_equal_images(ours, theirs, report.facts))
        if pairs:
            mine, other = pairs[0]
            yield split.warning(
                'overlap',
                f'{len(pairs)} of {len(theirs)} images are in the training '
                f'data too, so AP is too high: {other} is {mine}'
                + others([path for _, path in pairs]),
                'Remove them from one of the two.',
                count=len(pairs),
            )


def check_order(
    train: Split, split: Split, contents: Mapping[str, dict[str, Any]]
) -> Iterator[Finding]:
    """Checks that labels mean the same in two files.

    mmdet numbers the labels of each file by the order of its categories.
    """
    mine = used_names(contents[train.name], train)
    other = used_names(contents[split.name], split)
    # check_classes reports a file without any of the classes, or with equal
    # names.
    if mine == other or not (mine and other):
        return
    if len({*mine}) < len(mine) or len({*other}) < len(other):
        return
    files = f'{split.ann_file} and {train.ann_file}'
    near = ''
    reordered = set(mine) == set(other)
    if reordered:
        at = next(i for i, n in enumerate(mine) if n != other[i])
        problem = (
            f'categories of {files} are in different orders ({some(other)}; '
            f'{some(mine)}). mmdet numbers labels by that order: label {at} '
            f'is {mine[at]!r} in training and counts as {other[at]!r}'
        )
    else:
        problem = f'categories of {files} differ: {some(other)}; {some(mine)}'
        new = [n for n in other if n not in mine]
        near = did_you_mean(new[0], mine) if new else ''
    remedy = sentences(near, 'Both need the same names in the same order.')
    yield split.error('class order', problem, remedy, fixable=reordered)


def _equal_images(
    ours: set[Path], theirs: set[Path], facts: Facts
) -> Iterator[tuple[Path, Path]]:
    """Finds pairs of equal images in two splits.

    Compares pixels if all images were decoded, else the bytes of files of
    equal size, or only the paths if there are very many.
    """
    everything = ours | theirs
    if everything <= facts.keys():
        keys = {p: facts[p].digest or str(p) for p in everything}
    elif len(everything) <= 2 * STAT_LIMIT:
        # check_presence may have looked for a sample of them only.
        everything = {p for p in everything if os.path.isfile(p)}
        ours, theirs = ours & everything, theirs & everything
        sizes = {p: p.stat().st_size for p in everything}
        shared = {sizes[p] for p in ours} & {sizes[p] for p in theirs}
        keys = {
            p: hashlib.blake2b(p.read_bytes()).hexdigest()
            if sizes[p] in shared
            else str(p)
            for p in everything
        }
    else:
        keys = {p: str(p) for p in everything}
    mine = {keys[p]: p for p in sorted(ours, reverse=True)}
    for path in sorted(theirs):
        if keys[path] in mine:
            yield mine[keys[path]], path
