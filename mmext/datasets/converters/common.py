# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The common form of all source formats, and how COCO is written from it."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmext.errors import UserError, did_you_mean, printable
from mmext.utils import documents
from mmext.utils.files import write_json
from mmext.utils.images import is_image, shown_size
from mmext.utils.text import count, sentences, short, some

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


@dataclass
class Labelled:
    """What the annotations of YOLO or VOC say.

    Args:
        splits: Split -> its images; there may be no ``'val'``.
        names: The classes, in the order of their numbers.
        notes: What a user should know about how the folder was read.
    """

    splits: dict[str, list[LabelledImage]]
    names: list[str]
    notes: list[str]


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
    notes: list[str]


def split_of(*names: str) -> str | None:
    """Returns the split that the first of some files or folders names.

    ``train2017``, ``Train`` and ``training_new`` are ``'train'``; ``valid``
    is ``'val'``; ``trainval`` is none.
    """
    for name in names:
        word = re.match('[a-z]*', name.lower())[0]
        for split, words in WORDS.items():
            if word in words:
                return split
    return None


def one_per_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Returns split -> path, by the names of files or folders.

    ``train`` is preferred to ``training``, and that to ``train2017``.
    """
    found = []
    for path in sorted(paths):
        name = path.stem.lower()
        if split := split_of(name):
            rank = name != split, name not in WORDS[split]
            found.append((split, rank, path))
    return first_by_rank(found, 'candidates')


def first_by_rank(
    found: Iterable[tuple[str, tuple, Path]], kind: str
) -> dict[str, Path]:
    """Returns split -> path, from triples with the rank in the middle.

    Raises `UserError` if several paths have the first rank.
    """
    ranked: dict[str, dict[tuple, list[Path]]] = {}
    for split, rank, path in found:
        ranked.setdefault(split, {}).setdefault(rank, []).append(path)
    first = {split: ranks[min(ranks)] for split, ranks in ranked.items()}
    for split, paths in first.items():
        if len(paths) > 1:
            root = Path(os.path.commonpath([p.parent for p in paths]))
            names = some(sorted(str(p.relative_to(root)) for p in paths))
            images = 'all images' if split == 'all' else split
            raise UserError(
                f'{root} has several {kind} for {images}: {names}',
                'Keep one, and move the others to another folder.',
            )
    return {split: paths[0] for split, paths in first.items()}


def files_in(folder: Path) -> list[Path]:
    """Returns all files below a folder, sorted; links are followed.

    Hidden files and folders are left out.
    """
    found, visited = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [f for f in folders if f[0] != '.']
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        found += [Path(place, name) for name in names if name[0] != '.']
    return sorted(found)


def usual_files(root: Path, names: Collection[str]) -> list[Path]:
    """Returns files in a folder, and below those with names or of splits."""
    inside = [
        file
        for folder in root.glob('*')
        if folder.name.lower() in names or split_of(folder.name)
        for file in files_in(folder)
    ]
    return [*root.glob('*'), *inside]


def hold_out(
    items: Sequence[Any], part: float, notes: list[str]
) -> dict[str, list]:
    """Splits items into ``'train'`` and a fraction ``'val'``, and notes it.

    The items are shuffled, always in the same way. Raises `UserError` if
    there are fewer than two.
    """
    if not 0 < part < 1:
        raise UserError(
            f'--val-part {part:g} is not a fraction of the images',
            'Give one between 0 and 1, such as 0.2.',
        )
    total = len(items)
    if total < 2:
        raise UserError(
            f'the data have {count(total, "image")}, and no split',
            'Training needs images to train and images to validate.',
        )
    at = list(range(total))
    random.Random(0).shuffle(at)
    number = min(max(round(part * total), 1), total - 1)
    notes.append(
        f'There is no validation split: {number} of {total} images are held '
        'out, always the same ones (mmext convert --val-part)'
    )
    parts = {'train': at[number:], 'val': at[:number]}
    return {split: [items[i] for i in sorted(x)] for split, x in parts.items()}


def _drop_repeats(image: LabelledImage) -> int:
    """Keeps each object once, and returns how many were left out."""
    unique: list[LabelledObject] = []
    for o in image.objects:
        if o not in unique:
            unique.append(o)
    dropped = len(image.objects) - len(unique)
    image.objects = unique
    return dropped


def image_size(path: Path) -> tuple[int, int]:
    """Returns the width and height of an image as OpenCV loads it."""
    try:
        return shown_size(path)
    except Exception as error:  # its type depends on the format
        raise UserError(
            f'{path} is not a readable image: {error}',
            'Replace the file, or remove it with its annotations.',
        ) from error


def images_by_name(folder: Path) -> dict[str, Path]:
    """Returns images by their path in a folder without the suffix."""
    images: dict[str, Path] = {}
    for path in filter(is_image, files_in(folder)):
        name = name_in(folder, path)
        if name in images:
            raise UserError(
                f'{images[name]} and {path} would have the same annotations',
                'Rename one of them, or remove it if it is a copy.',
            )
        images[name] = path
    return images


def name_in(folder: Path, path: Path) -> str:
    """Returns a path in a folder without the suffix."""
    return path.relative_to(folder).with_suffix('').as_posix()


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


def to_coco(
    data: Labelled, root: Path, classes: Sequence[str], val_part: float
) -> Converted:
    """Returns COCO annotations of the objects of some classes.

    A fraction ``val_part`` of the images is held out if no split is for
    validation. Raises `UserError` if a class is unknown or named twice, or if
    a split has no images.
    """
    require_classes(classes, data.names, root)
    splits, notes = data.splits, [*data.notes]
    if 'val' not in splits:
        splits = hold_out(splits['train'], val_part, notes)
    for split, images in splits.items():
        if not images:
            raise UserError(
                f'split {split!r} of {root} has no images',
                'Training needs images to train and images to validate.',
            )
        repeats = {i.path: n for i in images if (n := _drop_repeats(i))}
        if repeats:
            number = count(sum(repeats.values()), 'object')
            notes.append(
                f'{split}: {number} listed twice (the first in the '
                f'annotations of {next(iter(repeats))}): each is kept once'
            )
    paths = [i.path for images in splits.values() for i in images]
    base = root
    if not all(path.is_relative_to(root) for path in paths):
        base = Path(os.path.commonpath([p.parent for p in paths]))
    contents = {s: _coco(i, classes, root, base) for s, i in splits.items()}
    return Converted(contents, base, notes)


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
        return documents.parse_json(documents.read_bytes(path), path)
    except UserError:
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
        _copy_images(data, out)
    folder.mkdir(parents=True, exist_ok=True)
    for split, file in written.items():
        write_json(file, data.contents[split])
    return written


def _copy_images(data: Converted, out: Path) -> None:
    """Copies all images or, if one is not in the folder, none."""
    names = [
        i['file_name'] for c in data.contents.values() for i in c['images']
    ]
    wrong = [
        name
        for name in names
        if os.path.normpath(name).startswith(('../', '/'))
        or not os.path.isfile(data.base / name)
    ]
    if wrong:
        raise UserError(
            f'{len(wrong)} of {count(len(names), "image")} cannot be copied, '
            f'because they are not in {data.base}: {some(wrong)}',
            'Add them, or remove their entries. mmext check-data --fix DIR '
            'writes corrected annotations.',
        )
    for name in names:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(data.base / name, target)


def _coco(
    images: Sequence[LabelledImage],
    names: Sequence[str],
    root: Path,
    base: Path,
) -> dict:
    if odd := [name for name in names if name != printable(name)]:
        raise UserError(
            f'class {short(odd[0])} of {root} has characters that cannot be '
            'printed',
            'Rename the class.',
        )
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
