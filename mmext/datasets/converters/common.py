# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The common form of all source formats, and what their readers share."""

from __future__ import annotations

import os
import random
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmext.errors import UserError, did_you_mean
from mmext.utils import documents
from mmext.utils.images import (
    SUFFIXES,
    files_in,
    is_hidden,
    is_image,
    shown_size,
)
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
    cut: int = 0  # objects with a part of more than a pixel outside

    def clip(
        self, x1: float, y1: float, x2: float, y2: float
    ) -> tuple[float, float, float, float] | None:
        """Returns x, y, width, height of the part inside, None if empty."""
        beyond = -x1, -y1, x2 - self.width, y2 - self.height
        self.cut += max(beyond) > 1
        x1, x2 = max(0.0, x1), min(float(self.width), x2)
        y1, y2 = max(0.0, y1), min(float(self.height), y2)
        if x2 <= x1 or y2 <= y1:
            return None
        return x1, y1, x2 - x1, y2 - y1


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


def entries(folder: Path) -> list[Path]:
    """Returns what is in a folder and not hidden, sorted."""
    return sorted(p for p in folder.glob('*') if not is_hidden(p.name))


def folders_in(folder: Path) -> list[Path]:
    """Returns the folders in a folder that are not hidden, sorted."""
    return [p for p in entries(folder) if p.is_dir()]


def usual_files(root: Path, names: Collection[str]) -> list[Path]:
    """Returns files in a folder, and below those with names or of splits."""
    inside = [
        file
        for folder in entries(root)
        if folder.name.lower() in names or split_of(folder.name)
        for file in files_in(folder)
    ]
    return [*entries(root), *inside]


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


def image_size(path: Path) -> tuple[int, int]:
    """Returns the width and height of an image as OpenCV loads it."""
    try:
        return shown_size(path)
    except Exception as error:  # its type depends on the format
        raise UserError(
            f'{path} is not a readable image: {error}',
            'Replace the file, or remove it with its annotations.',
        ) from error


def read_each(
    read: Callable[..., LabelledImage], arguments: Iterable[tuple]
) -> list[LabelledImage]:
    """Calls ``read`` for each annotation file and its image.

    Raises `UserError` with the first error, and the names of the other images
    with one.
    """
    images, errors = [], {}
    for file, image, *rest in arguments:
        try:
            images.append(read(file, image, *rest))
        except UserError as error:
            errors[image.name] = error
    if not errors:
        return images
    (_, first), *more = errors.items()
    if not more:
        raise first
    others = count(
        len(more),
        'more image or its annotations',
        'more images or their annotations',
    )
    names = some(name for name, _ in more)
    raise UserError(
        f'{first.problem}. {others} cannot be used: {names}', first.fix
    )


def other_formats(folder: Path) -> str:
    """Returns which files of a folder are not images by their suffix."""
    found = {p.suffix.lower() for p in files_in(folder)}
    found -= {*SUFFIXES, '', '.txt', '.xml', '.json', '.yaml', '.cache'}
    names = some(sorted(found))
    return f'; {names} files are not read as images' if names else ''


def find_file(folder: Path, name: str) -> Path | None:
    """Returns a file, however its name is written; None if there is none.

    Names may have backslashes, and accents in another encoding (NFC, NFD).
    """
    plain = name.replace('\\', '/')
    composed = (unicodedata.normalize(f, plain) for f in ('NFC', 'NFD'))
    paths = (folder / form for form in (name, plain, *composed))
    return next(filter(os.path.isfile, paths), None)


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
    """Returns a path in a folder without the suffix, accents as NFC."""
    name = path.relative_to(folder).with_suffix('').as_posix()
    return unicodedata.normalize('NFC', name)


def read_lines(path: Path) -> list[str]:
    """Returns the stripped lines of a UTF-8 file, with or without a BOM."""
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path} is not UTF-8: {error}', 'Save it in that encoding.'
        ) from error
    return [line.strip() for line in text.splitlines()]


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
