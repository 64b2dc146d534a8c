# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of image files, and of their entries in the annotations."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image
from rich.console import Console
from rich.progress import track

from mmext.checks.findings import Finding, Split
from mmext.errors import did_you_mean
from mmext.utils.images import SWAPPING, stored_size, turned_size
from mmext.utils.text import sentences, some


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file that was decoded."""

    width: int = 0  # as stored; 0 if the file cannot be read
    height: int = 0
    orientation: int = 1  # EXIF's if OpenCV applies it
    digest: str = ''  # of the RGB pixels, whatever the format of the file
    problem: str = ''  # why training cannot use the file

    def size(self, turned: bool) -> tuple[int, int]:
        """Returns width and height, as stored or turned by EXIF."""
        if turned:
            return turned_size(self.width, self.height, self.orientation)
        return self.width, self.height


Facts = Mapping[Path, ImageFacts]
#: Path -> entry in the annotation file.
Paths = Mapping[Path, dict]
LOOK = 'Look at them: tools/analysis_tools/browse_dataset.py.'
#: How a size differs -> what that may mean.
GUESSES = {
    'exchanged': 'width and height are exchanged',
    'scaled': 'the images may have been resized after they were annotated, so '
    'that boxes and masks are misplaced',
    'other': 'the file may be another image',
}


def read_image(path: Path) -> ImageFacts:
    """Decodes a file to its end.

    Pillow decodes it, because OpenCV, with which mmcv reads images, fills the
    rest of a truncated image with grey without an error.
    """
    try:
        with Image.open(path) as image:
            width, height, orientation = stored_size(path, image)
            image.load()
            pixels = image.convert('RGB').tobytes()
    except Exception as error:  # its type depends on the format
        if path.is_file() and path.stat().st_size == 0:
            return ImageFacts(problem='is empty')
        problem = str(error) or repr(error)
        return ImageFacts(problem=problem.replace(str(path), 'the file'))
    if not cv2.haveImageReader(str(path)):
        kind = Image.MIME.get(image.format or '', image.format)
        problem = f'is {kind}, which OpenCV and so mmcv cannot read'
        return ImageFacts(problem=problem)
    digest = hashlib.blake2b(pixels, digest_size=16)
    digest.update(f'{width} {orientation}'.encode())
    return ImageFacts(width, height, orientation, digest.hexdigest())


def read_images(
    paths: Iterable[Path], workers: int = 1, progress: bool = False
) -> dict[Path, ImageFacts]:
    """Decodes files in several threads; decoding releases Python's lock."""
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        jobs = {pool.submit(read_image, p): p for p in dict.fromkeys(paths)}
        done = track(
            as_completed(jobs),
            'Reading images',
            total=len(jobs),
            transient=True,
            console=Console(stderr=True),
            disable=not progress,
        )
        return {jobs[job]: job.result() for job in done}
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def image_paths(content: dict, split: Split) -> dict[Path, dict]:
    """Returns path -> entry of every image that stays in the split's root."""
    return {
        split.img_dir / image['file_name']: image
        for image in content['images']
        if split.holds(image['file_name'])
    }


def check_presence(
    paths: Paths, split: Split
) -> tuple[list[Finding], set[Path]]:
    """Checks that the files exist; also returns the paths that are missing."""
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        return [], set()
    first = missing[0]
    name = paths[first]['file_name']
    beside = sorted(os.listdir(first.parent)) if first.parent.is_dir() else []
    listed = {path.name for path in paths}
    others = [n for n in beside if n not in listed]
    near = did_you_mean(first.name, others[:5000])
    if len(missing) == len(paths):
        problem = (
            f'none of the {len(paths)} images of {split.ann_file} is in '
            f'{split.img_dir}: {name} does not exist'
        )
        remedy = sentences(
            'Is that the right folder (data_prefix.img)?',
            near,
            f'It has {some(beside) or "nothing in it"}.',
        )
    else:
        problem = (
            f'{len(missing)} of {len(paths)} images of {split.ann_file} are '
            f'not in {split.img_dir}; the first: {name}'
        )
        remedy = f'{near} Put the files there, or remove their entries.'
    finding = split.error(
        'images missing',
        problem,
        remedy.strip(),
        count=len(missing),
        fixable=len(missing) < len(paths),
    )
    return [finding], set(missing)


def check_images(
    facts: Facts, paths: Paths, split: Split
) -> Iterator[Finding]:
    """Checks that the images that were decoded can be trained on."""
    here = {path: facts[path] for path in paths if path in facts}
    broken = [path for path, fact in here.items() if fact.problem]
    if broken:
        first = broken[0]
        yield split.error(
            'images unreadable',
            f'{len(broken)} of {len(here)} images cannot be read to their '
            f'end; the first: {first} ({here[first].problem})',
            'Copy or download them again, or remove their entries.',
            count=len(broken),
            fixable=len(broken) < len(paths),
        )
    good = {path: fact for path, fact in here.items() if not fact.problem}
    problems = {
        path: size_problem(fact, paths[path], split.turned)
        for path, fact in good.items()
    }
    for problem, guess in GUESSES.items():
        differ = [path for path in good if problems[path] == problem]
        if not differ:
            continue
        first, entry = differ[0], paths[differ[0]]
        width, height = good[first].size(split.turned)
        yield split.error(
            'image sizes',
            f'{len(differ)} of {len(good)} images differ in size from their '
            f'entry: {first} is {width} x {height} and '
            f'{entry["width"]:g} x {entry["height"]:g} in {split.ann_file}; '
            f'{guess}',
            LOOK,
            count=len(differ),
            fixable=problem == 'exchanged',
        )
    unturned = [path for path in good if problems[path] == 'unturned']
    yield from _check_orientation(good, unturned, split)
    yield from _check_copies(good, split)


def size_problem(fact: ImageFacts, entry: dict, turned: bool) -> str:
    """Returns how the size in an entry differs from that of the file.

    ``'unturned'`` is the size before the turn by EXIF, or after it if images
    are not turned; ``''`` is the right size; ``'none'`` is no size.
    """
    size, listed = fact.size(turned), (entry['width'], entry['height'])
    if listed == size:
        return ''
    if fact.orientation in SWAPPING and listed == fact.size(not turned):
        return 'unturned'
    if min(listed) <= 0:
        return 'none'
    if listed == size[::-1]:
        return 'exchanged'
    if abs(listed[0] * size[1] - listed[1] * size[0]) <= max(listed):
        return 'scaled'
    return 'other'


def _check_orientation(
    facts: Facts, unturned: list[Path], split: Split
) -> Iterator[Finding]:
    turns = [p for p, fact in facts.items() if fact.orientation != 1]
    if unturned:
        first = unturned[0]
        kind = '' if split.turned else 'not '
        other = 'color_ignore_orientation' if split.turned else 'color'
        yield split.error(
            'EXIF rotation',
            f'{len(unturned)} of {len(facts)} images are {kind}turned by '
            'their EXIF tag when they are read, and were annotated the other '
            f'way: {first} (orientation {facts[first].orientation})',
            f"In the pipeline: dict(type='LoadImageFromFile', "
            f"color_type='{other}').",
            count=len(unturned),
        )
    # A half turn or a mirror keeps the size, so that entries do not show it.
    unknown = [p for p in turns if facts[p].orientation not in SWAPPING]
    if unknown and split.turned:
        first = unknown[0]
        yield split.warning(
            'EXIF rotation',
            f'{len(unknown)} of {len(facts)} images are turned or mirrored '
            f'by their EXIF tag when they are read: {first} (orientation '
            f'{facts[first].orientation}). Were they annotated as shown?',
            f"{LOOK} If not: color_type='color_ignore_orientation' in "
            'LoadImageFromFile.',
            count=len(unknown),
        )
    fine = len(turns) - len(unturned) - len(unknown)
    if fine:
        yield split.note(
            'EXIF rotation',
            f'{fine} of {len(facts)} images have an EXIF rotation that '
            'agrees with their entry',
            count=fine,
        )


def _check_copies(facts: Facts, split: Split) -> Iterator[Finding]:
    same = defaultdict(list)
    for path, fact in facts.items():
        same[fact.digest].append(path)
    groups = [group for group in same.values() if len(group) > 1]
    if groups:
        first, second = groups[0][:2]
        copies = sum(len(group) - 1 for group in groups)
        yield split.warning(
            'images twice',
            f'{copies} of {len(facts)} images are copies of others of the '
            f'same split: {second.name} of {first.name}',
            'Keep one of each, with all its annotations.',
            count=copies,
        )
