# Licensed under the Apache License, Version 2.0. See LICENSE.
"""All checks of all splits of a data set, and the table of what they found."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmext.checks.annotations import check_annotations
from mmext.checks.findings import ERROR, NOTE, WARNING, Finding, Split
from mmext.checks.images import (
    ImageFacts,
    check_images,
    check_presence,
    image_paths,
    read_images,
)
from mmext.datasets.coco import read_coco
from mmext.errors import did_you_mean
from mmext.utils.cache import cache_dir
from mmext.utils.files import write_json
from mmext.utils.text import some
from mmext.version import __version__

SAMPLE = 32  # images of a split that are decoded before a run
STAT_LIMIT = 20_000  # files of a split that are looked for before a run
LEVELS = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Report:
    """What the checks of a data set found.

    Args:
        splits: What was checked.
        contents: Their annotation files, by split name.
        facts: The image files that were read.
        missing: Those that are not there.
        findings: Errors first.
    """

    splits: tuple[Split, ...]
    contents: dict[str, dict]
    facts: dict[Path, ImageFacts]
    missing: frozenset[Path]
    findings: tuple[Finding, ...]


def check_data(
    splits: Sequence[Split],
    every_image: bool = False,
    workers: int = 1,
    progress: Callable[[int], Callable[[], object]] | None = None,
) -> Report:
    """Checks splits by themselves and against each other.

    Args:
        splits: Training data first.
        every_image: Whether to decode all images, and not a sample.
        workers: Threads that decode. Default: 1.
        progress: Called with the number of images; what it returns is
            called after each of them.

    Raises:
        UserError: An annotation file that cannot be read as COCO.
    """
    contents = {s.name: read_coco(s.ann_file) for s in splits}
    findings, missing, wanted, paths = [], set(), [], {}
    for split in splits:
        findings += check_annotations(contents[split.name], split)
        paths[split.name] = image_paths(contents[split.name], split)
        everything = list(paths[split.name])
        looked_for = everything
        if not every_image and len(everything) > STAT_LIMIT:
            looked_for = _spread(everything, SAMPLE)
        found, gone = check_presence(
            {path: paths[split.name][path] for path in looked_for}, split
        )
        findings += found
        missing |= gone
        there = [path for path in looked_for if path not in gone]
        wanted += there if every_image else _spread(there, SAMPLE)
    wanted = list(dict.fromkeys(wanted))
    advance = progress(len(wanted)) if progress else lambda: None
    facts = read_images(wanted, workers, advance)
    for split in splits:
        findings += check_images(facts, paths[split.name], split)
    findings += check_between(splits, contents, paths, facts, missing)
    return Report(
        tuple(splits),
        contents,
        facts,
        frozenset(missing),
        tuple(sorted(findings, key=lambda f: LEVELS.index(f.level))),
    )


def _spread(paths: list[Path], count: int) -> list[Path]:
    """Some of the paths, evenly from the first to the last."""
    at = np.linspace(0, len(paths) - 1, min(count, len(paths)))
    return [paths[i] for i in np.unique(at.round().astype(int))]


def check_between(
    splits: Sequence[Split],
    contents: Mapping[str, dict],
    paths: Mapping[str, Mapping[Path, dict]],
    facts: Mapping[Path, ImageFacts],
    missing: Iterable[Path],
) -> Iterator[Finding]:
    """Whether what is trained on and what is judged on fit together.

    Args:
        splits: Those to compare; the training ones say so.
        contents: Annotation files, by split name.
        paths: Image path -> its entry, by split name.
        facts: Of the images that were read.
        missing: Images that are not there.
    """
    train = [s for s in splits if s.training]
    for split in splits:
        if not train or split.training:
            continue
        yield from check_order(train[0], split, contents)
        ours = {p for s in train for p in paths[s.name]} - set(missing)
        theirs = set(paths[split.name]) - set(missing)
        pairs = list(_same_pictures(ours, theirs, facts))
        if pairs:
            mine, other = pairs[0]
            yield split.finding(
                WARNING,
                'overlap',
                f'{len(pairs)} of {len(theirs)} images are in the training '
                f'data too, so AP is too good: {other} is {mine}',
                'Take them out of one of the two.',
                count=len(pairs),
            )


def check_order(
    train: Split, split: Split, contents: Mapping[str, dict]
) -> Iterator[Finding]:
    """Whether labels mean the same in two files.

    mmdet numbers those of each file by that file's own order.
    """
    orders = []
    for one in (train, split):
        names = [c['name'] for c in contents[one.name]['categories']]
        orders.append([n for n in names if n in (one.classes or names)])
    mine, other = orders
    if mine == other or not (mine and other):  # the latter is told already
        return
    files = f'{split.ann_file} and {train.ann_file}'
    remedy = 'Both need the same names in the same order.'
    if set(mine) == set(other):
        at = next(i for i, n in enumerate(mine) if n != other[i])
        problem = (
            f'categories of {files} are in another order ({some(other)}; '
            f'{some(mine)}). mmdet numbers labels by it: label {at} is '
            f'{mine[at]!r} in training and counts as {other[at]!r}'
        )
    else:
        problem = f'categories of {files} differ: {some(other)}; {some(mine)}'
        new = [n for n in other if n not in mine]
        near = did_you_mean(new[0], mine) if new else ''
        remedy = f'{near} {remedy}'.strip()
    yield split.finding(
        ERROR,
        'class order',
        problem,
        remedy,
        mended=set(mine) == set(other),
    )


def _same_pictures(
    ours: set[Path], theirs: set[Path], facts: Mapping[Path, ImageFacts]
) -> Iterator[tuple[Path, Path]]:
    """Pairs of equal pictures of two splits.

    By their pixels where all were read; else by the bytes of the files, of
    which only those of equal size are read.
    """
    everything = ours | theirs
    if everything <= facts.keys():
        keys = {p: facts[p].digest or str(p) for p in everything}
    elif len(everything) <= 2 * STAT_LIMIT:
        # Of very many files only some were looked for: the rest may lack.
        everything = {p for p in everything if p.is_file()}
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


def table(report: Report) -> str:
    """The summary: what was checked, what was found, what to do."""
    lines = []
    for split in report.splits:
        content = report.contents[split.name]
        read = sum(p in report.facts for p in image_paths(content, split))
        lines.append(
            f'{split.name}: {len(content["images"])} images ({read} read), '
            f'{len(content["annotations"])} annotations, '
            f'{len(split.classes or content["categories"])} classes; '
            f'{split.ann_file}'
        )
    names = [split.name for split in report.splits]
    # Places in a config are long: the table names them by their first word.
    heads = [name.split('_')[0].split('.')[0] for name in names]
    counts: dict[str, Counter] = defaultdict(Counter)
    level = {}
    for finding in report.findings:
        counts[finding.check][finding.split] += finding.count
        level.setdefault(finding.check, finding.level)
    if counts:
        wide = max(len(check) for check in counts)
        lines += ['', f'{"":9}{"":{wide}}' + ''.join(f'{h:>9}' for h in heads)]
        for check, per_split in counts.items():
            cells = ''.join(f'{per_split[n] or "-":>9}' for n in names)
            lines.append(f'{level[check]:9}{check:{wide}}{cells}')
    lines.append('')
    for finding in report.findings:
        mended = ' (--fix mends it)' if finding.mended else ''
        lines.append(
            f'{finding.level}: {finding.split}: {finding.problem}{mended}'
        )
        if finding.remedy:
            lines.append(f'  -> {finding.remedy}')
    lines.append(verdict(report.findings))
    return '\n'.join(lines)


def stamp(splits: Sequence[Split]) -> Path:
    """Where the result of checking exactly these files is kept."""
    state: list = [__version__]
    for split in splits:
        files = [split.ann_file.absolute(), split.img_dir.absolute()]
        times = [(str(f), f.stat().st_mtime_ns) for f in files if f.exists()]
        state.append((split, times, split.ann_file.stat().st_size))
    name = hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest()
    return cache_dir() / 'checks' / f'{name}.json'


def remember(report: Report) -> None:
    """Spares the next run the checks that a full one has passed."""
    file = stamp(report.splits)
    if any(f.level == ERROR for f in report.findings):
        file.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):  # no cache, no harm
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, [asdict(f) for f in report.findings])


def remembered(splits: Sequence[Split]) -> list[Finding] | None:
    """What :func:`remember` kept of these splits, None where nothing."""
    try:
        content = json.loads(stamp(splits).read_text(encoding='utf-8'))
        return [Finding(**entry) for entry in content]
    except (OSError, ValueError, TypeError):
        return None


def verdict(findings: Iterable[Finding]) -> str:
    """How many errors, warnings and notes, in words."""
    counts = Counter(finding.level for finding in findings)
    said = [
        f'{counts[level]} {level}{"s" * (counts[level] != 1)}'
        for level in LEVELS
        if counts[level]
    ]
    return ', '.join(said) or 'nothing wrong was found'
