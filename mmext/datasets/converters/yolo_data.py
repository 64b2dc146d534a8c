# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Reads what the files of a YOLO data set say about it.

These are a YAML file of any name, or Darknet's ``obj.names`` (``classes.txt``)
and lists of images. The YAML file's ``train``, ``val`` and ``path`` say where
images are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmext.datasets.converters.common import (
    WORDS,
    entries,
    one_per_split,
    read_lines,
    split_of,
)
from mmext.errors import UserError
from mmext.utils import documents
from mmext.utils.images import files_in
from mmext.utils.text import count, short, some

#: Text files beside labels that are not labels, in lower case.
LISTS = tuple(f'{w}.txt' for words in WORDS.values() for w in words)
NAMES = 'classes.txt'
OTHER = (*LISTS, NAMES, 'readme.txt')
OTHER += ('readme.roboflow.txt', 'readme.dataset.txt')
LAYOUT = (
    'YOLO data have images/{train,val}/ and labels/{train,val}/, or '
    '{train,valid}/images/ and {train,valid}/labels/.'
)


@dataclass
class Description:
    """What a YAML file, or the files of Darknet, say about a data set."""

    file: Path
    names: dict[int, str]
    paths: dict[str, list[str]]  # split -> folders, images or lists of them
    path: str = ''  # what the paths are relative to
    skip: bool = False  # images without a label file are not used


def yaml_files(root: Path) -> list[Path]:
    """Returns the YAML files of a folder, or the one that is given."""
    if root.is_file():
        return [root]
    return [p for p in entries(root) if p.suffix.lower() in ('.yaml', '.yml')]


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file; one that is not a mapping is empty."""
    content = documents.parse_yaml(documents.read_bytes(path), path)
    return content if isinstance(content, dict) else {}


def describe(root: Path) -> Description:
    """Reads the names of the classes, and where images are."""
    found = [d for path in yaml_files(root) if (d := _from_yaml(path))]
    usual = ('data', 'dataset', 'config')
    found = [d for d in found if d.file.stem.lower() in usual] or found
    if len(found) > 1:
        first, second = found[0].file, found[1].file
        raise UserError(
            f'{first} and {second.name} both describe the data set',
            f'Name one: mmext convert yolo {first}',
        )
    root = root.parent if root.is_file() else root
    listings = _listings(root)
    if found:
        names = [*found[0].names.values()]
        for path, other in listings.items():
            if other != names and {*other} == {*names}:
                raise _other_order(found[0].file, names, path, other)
        return found[0]
    if not listings:
        raise UserError(
            f'{root} has no data.yaml with names: [...] and no classes.txt',
            'Write the class names in the order of their numbers to '
            f'{root / "classes.txt"}, one a line.',
        )
    file = max(listings, key=lambda path: len(listings[path]))
    names = listings[file]
    for path, other in listings.items():
        if other != names[: len(other)]:
            raise _other_order(file, names, path, other)
    files = [p for p in entries(root) if p.name.lower() in LISTS]
    lists = one_per_split(files)
    paths = {s: [p.name] for s, p in lists.items() if s != 'test'}
    return Description(file, dict(enumerate(names)), paths)


def _listings(root: Path) -> dict[Path, list[str]]:
    """Returns the names of classes by the text files that list them.

    labelImg writes a file into each folder of labels.
    """
    found = {}
    for path in files_in(root):
        if path.suffix.lower() != '.names' and path.name.lower() != NAMES:
            continue
        lines = read_lines(path)
        while lines and not lines[-1]:
            lines.pop()
        if '' in lines:  # would shift the numbers of the following names
            raise UserError(
                f'{path}: line {lines.index("") + 1} is empty',
                'The line is the number of the class. Write its name.',
            )
        if lines:
            found[path] = lines
    return found


def _other_order(
    file: Path, names: list[str], path: Path, other: list[str]
) -> UserError:
    return UserError(
        f'{file} and {path} number the classes differently: '
        f'{some(names, 10)}; {some(other, 10)}',
        'Remove the one by which the labels are not numbered. If each is '
        'right for a part of the labels, write those of one part again.',
    )


def _from_yaml(path: Path) -> Description | None:
    """Returns what a YAML file says, None if it has no names."""
    content = read_yaml(path)
    if 'kpt_shape' in content:  # its lines would be read as polygons
        raise UserError(
            f'{path} describes keypoints (kpt_shape)',
            'Only boxes and polygons can be converted; remove the keypoints.',
        )
    names = _yaml_names(path, content.get('names'))
    if not names:
        return None
    number = content.get('nc')
    if isinstance(number, int) and number != len(names):
        raise UserError(
            f'{path} has nc: {number} and {count(len(names), "name")}: '
            f'{some(names.values(), 10)}',
            'Correct one of them.',
        )
    return Description(
        path,
        names,
        _yaml_paths(path, content),
        str(content.get('path') or ''),
        bool(content.get('skip_if_label_file_missing')),
    )


def _yaml_names(path: Path, names: object) -> dict[int, str]:
    """Returns number -> name in the order of the numbers."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None:
        return {}
    if not isinstance(names, dict):
        raise UserError(
            f'{path}: names is {short(names)}, not a list',
            f'Write names: [{short(names)}].',
        )
    numbers = {str(k): k for k in names}
    if all(map(str.isdecimal, numbers)):  # in quotes, as JSON has them
        names = {int(k): names[number] for k, number in numbers.items()}
    if odd := [key for key in names if type(key) is not int or key < 0]:
        raise UserError(
            f'{path}: the keys of names are {some(names, 10)}, and '
            f'{odd[0]!r} is not the number of a class',
            'Number the names from 0.',
        )
    for name in names.values():
        # A bool is no or off.
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise UserError(
                f'{path}: a name is {short(name)}, not a word',
                'Put it in quotes.',
            )
    return {key: str(names[key]) for key in sorted(names)}


def _yaml_paths(path: Path, content: Mapping) -> dict[str, list[str]]:
    """Returns split -> the paths of its images."""
    found: dict[str, list[str]] = {}
    for key, value in content.items():
        word = str(key).rstrip('0123456789')  # not train_size
        split = split_of(word) if word.isalpha() else None
        if split in (None, 'test') or not value or split in found:
            continue
        texts = value if isinstance(value, list) else [value]
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise UserError(
                f'{path}: {split} is {short(odd[0])}, not a folder or a list '
                'of images',
                LAYOUT,
            )
        found[split] = texts
    return found
