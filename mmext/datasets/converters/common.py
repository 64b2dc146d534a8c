# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The common form of all source formats, and how COCO is written from it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmext.errors import UserError, did_you_mean
from mmext.utils.files import write_json
from mmext.utils.images import is_image, shown_size
from mmext.utils.text import count, sentences, some

#: Split -> how exports name it, before a number or a suffix.
WORDS = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}
VAL_PART = 0.2  # fraction of the images held out for validation
CONVERTED = 'converted from'  # begins the description of a written file


@dataclass
class LabelledObject:
    """One object, in pixels of its image."""

    name: str
    bbox: tuple[float, float, float, float]  # x, y, width, height
    polygon: list[float] | None = None  # x0, y0, x1, y1, ...
    ignore: bool = False  # neither learned nor counted: ``iscrowd``


@dataclass
class LabelledImage:
    """One image, its size as shown (EXIF rotation applied), its objects."""

    path: Path
    width: int
    height: int
    objects: list[LabelledObject] = field(default_factory=list)


#: Split -> its images.
Splits = Mapping[str, Sequence[LabelledImage]]


@dataclass
class Converted:
    """A data set in COCO's format.

    Args:
        contents: Split -> what its annotation file holds. File names are
            relative to ``base``.
        base: Folder of all images.
        notes: What a user should know about how the folder was read.
    """

    contents: dict[str, dict[str, Any]]
    base: Path
    notes: list[str] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """Returns the split that a file or folder is named after.

    ``train2017``, ``Train`` and ``training_new`` are ``'train'``; ``valid``
    is ``'val'``; ``trainval`` is none.
    """
    found = re.match(r'([a-z]+)(?![a-z])', name.lower())
    word = found[1] if found else ''
    return next((s for s, words in WORDS.items() if word in words), None)


def one_per_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Returns the path of each split, by the names of the paths.

    ``train`` is preferred to ``train2017``. Raises `UserError` if there are
    several of equal rank.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        if split := split_of(path.stem):
            found.setdefault(split, []).append(path)
    for split, several in found.items():
        exact = [p for p in several if p.stem.lower() == split] or [
            p for p in several if p.stem.lower() in WORDS[split]
        ]
        found[split] = exact or several
    return {s: only(several, s) for s, several in found.items()}


def only(paths: Sequence[Path], split: str) -> Path:
    """Returns the one path; raises `UserError` if there are several."""
    if len(paths) > 1:
        names = some(p.name for p in paths)
        raise UserError(
            f'{paths[0].parent} has several candidates for the split '
            f'{split!r}: {names}',
            'Move all but one to another folder.',
        )
    return paths[0]


def files_in(folder: Path) -> list[Path]:
    """Returns all files below a folder, sorted; links are followed.

    Hidden files and folders are left out.
    """
    found, visited = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(f for f in folders if f[0] != '.')
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        found += [Path(place, name) for name in names if name[0] != '.']
    return sorted(found)


def hold_out(items: Sequence[Any], part: float) -> tuple[list, list]:
    """Splits items into those to train on and a fraction to validate on.

    The items are shuffled, always in the same way. Raises `UserError` if
    there are fewer than two.
    """
    if not 0 < part < 1:
        raise UserError(
            f'--val-part {part:g} is not a fraction of the images',
            'Give one between 0 and 1, such as 0.2.',
        )
    if len(items) < 2:
        raise UserError(
            f'the data have {count(len(items), "image")}, and no split',
            'Training needs images to train and images to validate.',
        )
    at = list(range(len(items)))
    random.Random(0).shuffle(at)
    number = min(max(round(part * len(items)), 1), len(items) - 1)
    return tuple(
        [items[i] for i in sorted(x)] for x in (at[number:], at[:number])
    )


def held_out_note(splits: Mapping[str, Sequence]) -> str:
    """Returns a sentence about the result of :func:`hold_out`."""
    number, total = len(splits['val']), sum(map(len, splits.values()))
    return (
        f'There is no validation split: {number} of {total} images are held '
        'out, always the same ones (mmext convert --val-part)'
    )


def drop_repeats(images: Iterable[LabelledImage]) -> str:
    """Removes objects that are listed twice in an image, in place.

    Returns a sentence about it, or an empty string.
    """
    dropped, first = 0, None
    for image in images:
        unique = []
        for o in image.objects:
            if o not in unique:
                unique.append(o)
        if more := len(image.objects) - len(unique):
            dropped, first = dropped + more, first or image.path
        image.objects = unique
    if not dropped:
        return ''
    return (
        f'{count(dropped, "object")} listed twice (the first in the '
        f'annotations of {first}): each is kept once'
    )


def image_size(path: Path) -> tuple[int, int]:
    """Returns the width and height of an image as OpenCV loads it."""
    try:
        return shown_size(path)
    except Exception as error:  # its type depends on the format
        raise UserError(
            f'{path} is not a readable image: {error}',
            'Replace the file, or remove it with its annotations.',
        ) from error


def images_by_name(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Returns images by their path in ``folder`` without the suffix."""
    images: dict[str, Path] = {}
    for path in sorted(filter(is_image, files)):
        name = path.relative_to(folder).with_suffix('').as_posix()
        if name in images:
            raise UserError(
                f'{images[name]} and {path} would have the same annotations',
                'Rename one of them, or remove it if it is a copy.',
            )
        images[name] = path
    return images


def read_lines(path: Path) -> list[str]:
    """Returns the stripped lines of a UTF-8 file, with or without a BOM."""
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path} is not UTF-8: {error}', 'Save it in that encoding.'
        ) from error
    return [line.strip() for line in text.splitlines()]


def clip_box(
    x1: float, y1: float, x2: float, y2: float, width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Returns x, y, width, height of the part in the image, None if empty."""
    x1, x2 = max(0.0, x1), min(float(width), x2)
    y1, y2 = max(0.0, y1), min(float(height), y2)
    if x2 <= x1 or y2 <= y1:
        return None
    return x1, y1, x2 - x1, y2 - y1


def write_coco_folder(
    splits: Splits, names: Sequence[str], root: Path, out: Path
) -> dict[str, Path]:
    """Writes ``annotations/instances_<split>.json`` for every split.

    Objects of classes that are not among ``names`` are left out. If ``out``
    is not ``root``, images are copied. Returns the files by split.
    """
    return write_folder(to_coco(splits, names, root), root, out)


def to_coco(
    splits: Splits,
    names: Sequence[str],
    root: Path,
    known: Collection[str] | None = None,
) -> Converted:
    """Returns COCO annotations of the objects of the classes ``names``.

    ``known`` are the classes that may be named; by default those that have
    objects. Raises `UserError` if a name is unknown or named twice, or if a
    split has no images.
    """
    known = class_names(splits) if known is None else known
    require_classes(names, known, root)
    for split, images in splits.items():
        if not images:
            raise UserError(
                f'split {split!r} of {root} has no images',
                'Training needs images to train and images to validate.',
            )
    paths = [i.path for images in splits.values() for i in images]
    base = root
    if not all(path.is_relative_to(root) for path in paths):
        base = Path(os.path.commonpath([p.parent for p in paths]))
    contents = {s: _coco(i, names, root, base) for s, i in splits.items()}
    return Converted(contents, base)


def require_classes(
    names: Sequence[str], known: Collection[str], root: Path
) -> None:
    """Raises `UserError` if a name is unknown or named twice."""
    for name in names:
        if list(names).count(name) > 1:
            raise UserError(
                f'class {name!r} is named twice: {", ".join(names)}',
                'Give each class a name of its own.',
            )
        if name not in known:
            raise UserError(
                f'no object of class {name!r} in {root}',
                sentences(
                    did_you_mean(name, known),
                    f'It has: {", ".join(sorted(known)) or "no objects"}',
                ),
            )


def parse_json(path: Path) -> Any:
    """Returns the content of a JSON file; None if it has another format."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def is_converted(content: Any) -> bool:
    """Returns whether mmext has written an annotation file."""
    info = content.get('info') if isinstance(content, dict) else None
    text = info.get('description') if isinstance(info, dict) else None
    return isinstance(text, str) and text.startswith(CONVERTED)


def write_folder(data: Converted, root: Path, out: Path) -> dict[str, Path]:
    """Writes ``annotations/instances_<split>.json`` for every split.

    If ``out`` is not ``root``, images are copied. Returns the files by split.
    Raises `UserError` if ``out`` is ``root`` and images are elsewhere.
    """
    same = out.resolve() == root.resolve()
    if same and data.base != root:
        raise UserError(
            f'the images are in {data.base}, outside of {root}',
            '--out DIR writes a folder with annotations and copies of them.',
        )
    folder = out / 'annotations'
    written = {s: folder / f'instances_{s}.json' for s in data.contents}
    for file in written.values():
        if file.is_file() and not is_converted(parse_json(file)):
            raise UserError(
                f'{file} exists, and mmext did not write it',
                'Move it, or write to another folder with --out DIR.',
            )
    if not same:
        for content in data.contents.values():
            for image in content['images']:
                target = out / image['file_name']
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(data.base / image['file_name'], target)
    folder.mkdir(parents=True, exist_ok=True)
    for split, file in written.items():
        write_json(file, data.contents[split])
    return written


def class_names(splits: Splits) -> set[str]:
    """Returns the names of all objects."""
    return {
        o.name for images in splits.values() for i in images for o in i.objects
    }


def _coco(
    images: Sequence[LabelledImage],
    names: Sequence[str],
    root: Path,
    base: Path,
) -> dict:
    ids = {name: i + 1 for i, name in enumerate(names)}
    records, annotations = [], []
    for image_id, image in enumerate(images, 1):
        record = {
            'id': image_id,
            'file_name': image.path.relative_to(base).as_posix(),
            'width': image.width,
            'height': image.height,
        }
        records.append(record)
        for o in image.objects:
            if o.name not in ids:
                continue
            annotation = {
                'id': len(annotations) + 1,
                'image_id': image_id,
                'category_id': ids[o.name],
                'bbox': [round(v, 3) for v in o.bbox],
                'area': round(_area(o), 3),
                'iscrowd': int(o.ignore),
            }
            if o.polygon is not None:
                annotation['segmentation'] = [[round(v, 3) for v in o.polygon]]
            annotations.append(annotation)
    return {
        'info': {'description': f'{CONVERTED} {root.name}'},
        'licenses': [],
        'images': records,
        'annotations': annotations,
        'categories': [{'id': ids[n], 'name': n} for n in names],
    }


def _area(o: LabelledObject) -> float:
    if o.polygon is None:
        return o.bbox[2] * o.bbox[3]
    x, y = np.array(o.polygon[::2]), np.array(o.polygon[1::2])
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
