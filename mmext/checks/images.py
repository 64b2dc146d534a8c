# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks of image files, and of their entries in the annotations."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mmext.checks.file_names import KINDS, FileNames, Spelling
from mmext.checks.findings import Finding, Split
from mmext.checks.image_facts import Facts, ImageFacts
from mmext.errors import did_you_mean
from mmext.utils.images import SWAPPING
from mmext.utils.text import sentences, some

#: Path -> entry in the annotation file.
Paths = Mapping[Path, dict]
LOOK = 'Look at them: mmext browse-dataset.'
#: How a size differs -> what that may mean.
GUESSES = {
    'exchanged': 'width and height are exchanged',
    'ignored': 'their EXIF tag turns them, which OpenCV ignores in this '
    'format: boxes and masks are misplaced. Save them turned, without the tag',
    'scaled': 'the images may have been resized after they were annotated, so '
    'that boxes and masks are misplaced',
    'other': 'the file may be another image',
}


def image_paths(content: dict, split: Split) -> dict[Path, dict]:
    """Returns path -> entry of every image that stays in the split's root."""
    return {
        split.img_dir / image['file_name']: image
        for image in content['images']
        if split.holds(image['file_name'])
    }


def usable(fact: ImageFacts, split: Split) -> bool:
    """Returns whether the split's pipeline can read an image."""
    keeps_values = split.color_type == 'unchanged' and bool(fact.dtype)
    return not fact.problem or (keeps_values and not fact.damage)


def respelled(
    missing: Iterable[Path], paths: Paths, split: Split
) -> dict[Path, Spelling]:
    """Returns the files that missing entries mean, by path of the entry.

    Folders are left out of names only if no image is found otherwise.
    """
    names = FileNames(split.img_dir)
    found = {p: names.find(paths[p]['file_name']) for p in missing}
    clear = {p: spelling for p, spelling in found.items() if spelling}
    if len(clear) < len(paths):
        clear = {p: s for p, s in clear.items() if s.kind != 'folders'}
    taken = Counter(s.name for s in clear.values())
    return {
        path: spelling
        for path, spelling in clear.items()
        if taken[spelling.name] == 1
        and split.img_dir / spelling.name not in paths
    }


def check_presence(
    paths: Paths, split: Split
) -> tuple[list[Finding], set[Path]]:
    """Checks that the files exist; also returns the paths that are missing."""
    missing = [path for path in paths if not os.path.isfile(path)]
    if not missing:
        return [], set()
    spelled = respelled(missing, paths, split)
    found = list(_check_spelling(spelled, paths, split))
    gone = [path for path in missing if path not in spelled]
    if not gone:
        return found, set(missing)
    first = gone[0]
    names = [paths[path]['file_name'] for path in gone]
    folder = first.parent if os.path.isdir(first.parent) else split.img_dir
    beside = sorted(os.listdir(folder)) if folder.is_dir() else []
    listed = {path.name for path in paths}
    others = [n for n in beside if n not in listed]
    near = did_you_mean(first.name, others[:5000])
    if len(gone) == len(paths):
        problem = (
            f'none of the {len(paths)} images of {split.ann_file} is in '
            f'{split.img_dir}: {some(names, 3)}'
        )
        remedy = sentences(
            'Is that the right folder (data_prefix.img)?',
            near,
            f'{folder} has {some(beside) or "nothing in it"}.'
            if folder.is_dir()
            else f'{folder} does not exist.',
        )
    else:
        problem = (
            f'{len(gone)} of {len(paths)} images of {split.ann_file} are '
            f'not in {split.img_dir}: {some(names)}'
        )
        remedy = f'{near} Put the files there, or remove their entries.'
    finding = split.error(
        'images missing',
        problem,
        remedy.strip(),
        count=len(gone),
        fixable=len(gone) < len(paths),
    )
    return [*found, finding], set(missing)


def _check_spelling(
    spelled: Mapping[Path, Spelling], paths: Paths, split: Split
) -> Iterator[Finding]:
    for kind, text in KINDS.items():
        mine = {p: s for p, s in spelled.items() if s.kind == kind}
        if not mine:
            continue
        path, (name, _, dropped) = next(iter(mine.items()))
        listed = paths[path]['file_name']
        remedy = 'Write the names as they are on disk.'
        if kind == 'folders':
            text = text.format(dropped=dropped, folder=split.img_dir)
            remedy = f'Remove {dropped}/ from the names.'
            if split.img_dir.as_posix().endswith(f'/{dropped}'):
                base = split.img_dir.as_posix().removesuffix(f'/{dropped}')
                prefix = os.path.relpath(base, split.root or base)
                prefix = '' if prefix == '.' else prefix
                remedy = f'In the config: data_prefix.img={prefix!r}.'
        if kind == 'letters':  # the same to the eye
            listed, name = ascii(listed)[1:-1], ascii(name)[1:-1]
        yield split.error(
            'file names',
            f'{len(mine)} of {len(paths)} file names of {split.ann_file} '
            f'{text}: {listed} is {name} on disk',
            remedy,
            count=len(mine),
            fixable=True,
        )


def check_images(
    facts: Facts, paths: Paths, split: Split
) -> Iterator[Finding]:
    """Checks that the images that were decoded can be trained on."""
    here = {path: facts[path] for path in paths if path in facts}
    broken = [p for p, fact in here.items() if not usable(fact, split)]
    if broken:
        remedy = 'Copy or download them again, or remove their entries.'
        if here[broken[0]].dtype:
            remedy = 'Scale them to 0 to 255 and save them with 8 bits.'
        yield split.error(
            'images unreadable',
            f'{len(broken)} of {len(here)} images cannot be read: '
            f'{broken[0]} ({here[broken[0]].problem})' + others(broken),
            remedy,
            count=len(broken),
            fixable=len(broken) < len(paths),
        )
    good = {p: fact for p, fact in here.items() if usable(fact, split)}
    damaged = [path for path, fact in good.items() if fact.damage]
    if damaged:
        yield split.warning(
            'images damaged',
            f'{len(damaged)} of {len(here)} images are damaged in a part, '
            'which OpenCV fills with other colors: '
            f'{damaged[0]} ({good[damaged[0]].damage})' + others(damaged),
            'Look at them, and copy or download them again.',
            count=len(damaged),
        )
    yield from _check_depth(good, split)
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
    are not turned; ``'ignored'`` is that after a turn that OpenCV does not
    make; ``''`` is the right size; ``'none'`` is no size.
    """
    size, listed = fact.size(turned), (entry['width'], entry['height'])
    if listed == size:
        return ''
    if fact.orientation in SWAPPING and listed == fact.size(not turned):
        return 'unturned'
    if fact.ignored in SWAPPING and listed == size[::-1]:
        return 'ignored'
    if min(listed) <= 0:
        return 'none'
    if listed == size[::-1]:
        return 'exchanged'
    if abs(listed[0] * size[1] - listed[1] * size[0]) <= max(listed):
        return 'scaled'
    return 'other'


def others(paths: list[Path]) -> str:
    """Returns the names of all but the first of several paths."""
    names = some((path.name for path in paths[1:]), 4)
    return f'; also {names}' if names else ''


def _check_depth(facts: Facts, split: Split) -> Iterator[Finding]:
    deep = [path for path, fact in facts.items() if fact.dtype]
    if not deep or split.color_type == 'unchanged':
        return
    first = facts[deep[0]]
    low, high = first.values
    yield split.warning(
        'image depth',
        f'{len(deep)} of {len(facts)} images have {first.dtype} values, which '
        f'OpenCV converts to 8 bits, so that the low bits are lost: those of '
        f'{deep[0]} become {low} to {high} of 255{others(deep)}',
        'Scale them to 0 to 255 and save them with 8 bits.',
        count=len(deep),
    )


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
            f'same split: {second.name} of {first.name}'
            + others([group[1] for group in groups]),
            'Keep one of each, with all its annotations.',
            count=copies,
        )
