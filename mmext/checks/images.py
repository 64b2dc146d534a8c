# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What can be wrong with image files, and whether they fit their entries."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmext.checks.findings import ERROR, NOTE, WARNING, Finding, Split
from mmext.errors import did_you_mean
from mmext.utils.text import some

ORIENTATION = 0x0112  # the EXIF tag
SWAPPING = (5, 6, 7, 8)  # its values that swap width and height


@dataclass(frozen=True)
class ImageFacts:
    """What one file is.

    Args:
        width: Of the stored pixels; 0 where it cannot be read.
        height: Of the stored pixels.
        orientation: EXIF's where OpenCV heeds it, 1 for as stored.
        digest: Of the decoded RGB pixels: equal for equal pictures, whatever
            the names and lossless formats of the files.
        problem: Why training cannot use it, empty where it can.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    digest: str = ''
    problem: str = ''

    def size(self, turned: bool) -> tuple[int, int]:
        """Width and height, as stored or turned as EXIF says."""
        if turned and self.orientation in SWAPPING:
            return self.height, self.width
        return self.width, self.height


def read_image(path: Path) -> ImageFacts:
    """Decodes a file to its end.

    OpenCV, with which mmcv reads, fills the rest of a truncated picture with
    grey and says nothing, so Pillow is asked.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(ORIENTATION, 1)
            image.load()
            pixels = image.convert('RGB').tobytes()
    except Exception as error:  # what is raised is up to the format
        kind = 'is empty' if _is_empty(path) else str(error) or repr(error)
        return ImageFacts(problem=kind.replace(str(path), 'the file'))
    if not cv2.haveImageReader(str(path)):
        kind = Image.MIME.get(image.format or '', image.format)
        return ImageFacts(
            problem=f'is {kind}, which OpenCV and so mmcv cannot read'
        )
    if orientation not in (0, 1):  # heeded or not: OpenCV's choice by format
        data = np.fromfile(path, np.uint8)
        stored, shown = (
            cv2.imdecode(data, cv2.IMREAD_COLOR | flag)
            for flag in (cv2.IMREAD_IGNORE_ORIENTATION, 0)
        )
        if stored is None:
            return ImageFacts(problem='cannot be decoded by OpenCV')
        height, width = stored.shape[:2]
        if np.array_equal(stored, shown):
            orientation = 1
    digest = hashlib.blake2b(pixels, digest_size=16)
    digest.update(f'{width} {orientation}'.encode())
    return ImageFacts(width, height, orientation, digest.hexdigest())


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def read_images(
    paths: Iterable[Path],
    workers: int = 1,
    advance: Callable[[], object] = lambda: None,
) -> dict[Path, ImageFacts]:
    """Reads files in several threads; decoding leaves Python's lock.

    Args:
        paths: What to read; each is read once.
        workers: Threads. Default: 1.
        advance: Called after each file.
    """
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        jobs = {pool.submit(read_image, p): p for p in dict.fromkeys(paths)}
        facts = {}
        for job in as_completed(jobs):
            facts[jobs[job]] = job.result()
            advance()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return facts


def image_paths(content: dict, split: Split) -> dict[Path, dict]:
    """Path and entry of every image that stays in the split's root."""
    return {
        split.img_dir / image['file_name']: image
        for image in content['images']
        if split.holds(image['file_name'])
    }


def check_presence(
    paths: Mapping[Path, dict], split: Split
) -> tuple[list[Finding], set[Path]]:
    """Whether the files are there.

    Returns:
        Findings, and the paths of missing files.
    """
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        return [], set()
    first = missing[0]
    name = paths[first]['file_name']
    beside = sorted(os.listdir(first.parent)) if first.parent.is_dir() else []
    listed = {path.name for path in paths}
    near = did_you_mean(
        first.name, [n for n in beside if n not in listed][:5000]
    )
    if len(missing) == len(paths):
        problem = (
            f'none of the {len(paths)} images of {split.ann_file} is in '
            f'{split.img_dir}: {name} does not exist'
        )
        remedy = f'Is that the right folder (data_prefix.img)? {near}'
        remedy += f' It has {some(beside) or "nothing in it"}.'
    else:
        problem = (
            f'{len(missing)} of {len(paths)} images of {split.ann_file} are '
            f'not in {split.img_dir}; the first: {name}'
        )
        remedy = f'{near} Put the files there, or remove their entries.'
    finding = split.finding(
        ERROR,
        'images missing',
        problem,
        remedy.strip(),
        count=len(missing),
        mended=len(missing) < len(paths),
    )
    return [finding], set(missing)


def check_images(
    facts: Mapping[Path, ImageFacts],
    paths: Mapping[Path, dict],
    split: Split,
) -> Iterator[Finding]:
    """Whether the files that were read can be trained on.

    Args:
        facts: Of the files that were read, see :func:`read_images`.
        paths: Of all images of the split, see :func:`image_paths`.
        split: What they are used for.
    """
    here = {path: facts[path] for path in paths if path in facts}
    broken = [path for path, fact in here.items() if fact.problem]
    if broken:
        first = broken[0]
        yield split.finding(
            ERROR,
            'images unreadable',
            f'{len(broken)} of {len(here)} images cannot be read to their '
            'end; the first: '
            f'{first} ({here[first].problem})',
            'Copy or download them again, or remove their entries.',
            count=len(broken),
            mended=len(broken) < len(paths),
        )
    good = {path: fact for path, fact in here.items() if not fact.problem}
    yield from _check_sizes(good, paths, split)
    yield from _check_orientation(good, paths, split)
    yield from _check_twins(good, split)


def size_problem(fact: ImageFacts, entry: dict, turned: bool) -> str:
    """How an entry's size differs from its file's.

    Returns:
        Empty where it does not, ``unturned`` for the size before a turn by
        EXIF (or after, where none is made), ``none`` for an entry without
        one, ``exchanged``, ``scaled`` or ``other``.
    """
    size, said = fact.size(turned), (entry['width'], entry['height'])
    if said == size:
        return ''
    if fact.orientation in SWAPPING and said == fact.size(not turned):
        return 'unturned'
    if min(said) <= 0:
        return 'none'
    if said == size[::-1]:
        return 'exchanged'
    if abs(said[0] * size[1] - said[1] * size[0]) <= max(said):
        return 'scaled'
    return 'other'


GUESSES = {
    'exchanged': 'width and height are exchanged',
    'scaled': 'the pictures may have been resized after they were annotated: '
    'boxes and masks would then be on other places',
    'other': 'the file may be another picture',
}


def _check_sizes(
    facts: Mapping[Path, ImageFacts],
    paths: Mapping[Path, dict],
    split: Split,
) -> Iterator[Finding]:
    for kind, guess in GUESSES.items():
        differ = [
            path
            for path, fact in facts.items()
            if size_problem(fact, paths[path], split.turned) == kind
        ]
        if not differ:
            continue
        first = differ[0]
        width, height = facts[first].size(split.turned)
        entry = paths[first]
        yield split.finding(
            ERROR,
            'image sizes',
            f'{len(differ)} of {len(facts)} images have another size than '
            f'their entry: {first} is {width} x {height} and '
            f'{entry["width"]:g} x {entry["height"]:g} in {split.ann_file}; '
            f'{guess}',
            'Look at them: tools/analysis_tools/browse_dataset.py.',
            count=len(differ),
            mended=kind == 'exchanged',
        )


def _check_orientation(
    facts: Mapping[Path, ImageFacts],
    paths: Mapping[Path, dict],
    split: Split,
) -> Iterator[Finding]:
    turns = [p for p, fact in facts.items() if fact.orientation not in (0, 1)]
    wrong = [
        p
        for p in turns
        if size_problem(facts[p], paths[p], split.turned) == 'unturned'
    ]
    if wrong:
        first = wrong[0]
        kind = '' if split.turned else 'not '
        other = 'color_ignore_orientation' if split.turned else 'color'
        yield split.finding(
            ERROR,
            'EXIF rotation',
            f'{len(wrong)} of {len(facts)} images are {kind}turned by their '
            'EXIF tag when '
            f'they are read, and were annotated the other way: {first} '
            f'(orientation {facts[first].orientation})',
            f"In the pipeline: dict(type='LoadImageFromFile', "
            f"color_type='{other}').",
            count=len(wrong),
        )
    # A half turn or a mirror keeps the size: the entry cannot tell.
    unknown = [p for p in turns if facts[p].orientation not in SWAPPING]
    if unknown and split.turned:
        first = unknown[0]
        yield split.finding(
            WARNING,
            'EXIF rotation',
            f'{len(unknown)} of {len(facts)} images are turned or mirrored '
            'by their EXIF tag '
            f'when they are read: {first} (orientation '
            f'{facts[first].orientation}). Were they annotated as shown?',
            'Look at them: tools/analysis_tools/browse_dataset.py. If not: '
            "color_type='color_ignore_orientation' in LoadImageFromFile.",
            count=len(unknown),
        )
    fine = len(turns) - len(wrong) - len(unknown)
    if fine:
        yield split.finding(
            NOTE,
            'EXIF rotation',
            f'{fine} of {len(facts)} images carry an EXIF rotation that '
            'fits their entry',
            count=fine,
        )


def _check_twins(
    facts: Mapping[Path, ImageFacts], split: Split
) -> Iterator[Finding]:
    same = defaultdict(list)
    for path, fact in facts.items():
        same[fact.digest].append(path)
    groups = [group for group in same.values() if len(group) > 1]
    if groups:
        first, second = groups[0][:2]
        yield split.finding(
            WARNING,
            'images twice',
            f'{sum(len(g) - 1 for g in groups)} of {len(facts)} images are '
            'copies of others '
            f'of the same split: {second.name} of {first.name}',
            'Keep one of each, with all its annotations.',
            count=sum(len(g) - 1 for g in groups),
        )
