# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Result files of other trainers, read as COCO's.

They differ from COCO's format in three ways:

- images: a number, or the name of the image's file, with or without suffix;
- categories: the ids of the annotation file, or numbers from 0 or 1;
- records: one a detection, or one an image with ``boxes`` as corners.

Ultralytics (``val(save_json=True)``) writes ``predictions.json``, with the
stem of the file as the image, and categories from 0 in older versions, from 1
in newer ones. Detectron2 writes ``coco_instances_results.json`` with ids if
the data set has them, otherwise from 0. torchvision's and RF-DETR's evaluation
make COCO's records; their models return boxes as corners.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.utils import documents
from mmext.utils.text import sentences, short, some

FORMATS = ('coco', 'ultralytics', 'torchvision', 'detectron2', 'rf-detr')
NUMBERINGS = ('ids', '0', '1')
#: Keys that may hold the image or its file, the best first.
_IMAGE_KEYS = ('file_name', 'image_name', 'image_path', 'image', 'image_id')
_CORNERS = ('x_min', 'y_min', 'x_max', 'y_max')


@dataclass(frozen=True)
class Format:
    """How a result file is written.

    Args:
        name: One of `FORMATS`. Default: ``'coco'``.
        categories: What the numbers of categories are: ``'ids'`` of the
            annotation file, or ``'0'`` or ``'1'`` if they count from 0 or 1
            in the order of the ids. After a colon may stand the names in the
            order of the numbers: a file with one a line, a ``data.yaml``, or
            the names themselves, as in ``'0:cat,dog'``. Default: ``'ids'``
            for COCO's format, otherwise what the file shows.
    """

    name: str = 'coco'
    categories: str | None = None

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise UserError(
                f'--format {self.name} is not known',
                sentences(
                    did_you_mean(self.name, FORMATS),
                    f'Formats: {some(FORMATS, 9)}.',
                ),
            )
        start = (self.categories or 'ids').partition(':')[0]
        if start not in NUMBERINGS or self.categories == 'ids:':
            raise UserError(
                f'--categories {self.categories}: numbers count from 0 or 1, '
                'or are ids',
                'For example --categories 0, or 0:data.yaml with the names '
                'in the order of the numbers.',
            )


COCO = Format()


def formats_of(
    sources: Sequence[str], formats: Iterable[str], categories: Iterable[str]
) -> dict[str, Format]:
    """Returns the format of each source from ``[FILE=]VALUE`` options.

    A value that names the source's file precedes one without a file.

    Raises:
        UserError: An option names another file, or a value is not known.
    """
    names, numbers = (
        dict(option.rpartition('=')[::2] for option in options)
        for options in (formats, categories)
    )
    for file in {**names, **numbers}:
        if file and file not in sources:
            raise UserError(
                f'--format or --categories for {file}, which is not compared',
                sentences(
                    did_you_mean(file, sources), 'Give FILE as the run.'
                ),
            )
    return {
        source: Format(
            names.get(source, names.get('', 'coco')),
            numbers.get(source, numbers.get('')),
        )
        for source in sources
    }


class Reader:
    """Reads the records of one file as COCO's."""

    def __init__(
        self, path: Path, truth: GroundTruth, file_format: Format
    ) -> None:
        self.path, self.truth, self.format = path, truth, file_format
        self.warnings: list[str] = []
        self._named = False  # whether categories were given by name

    def records(self, found: Iterable[dict]) -> Iterator[dict]:
        """Returns COCO's records, whose categories are still as written."""
        if self.format.name == 'coco':
            return iter(found)
        return self._converted(found)

    def _converted(self, found: Iterable[dict]) -> Iterator[dict]:
        images = _image_names(self.truth)
        for n, record in enumerate(found):
            try:
                for one in _flat(record):
                    image_id = self._image_id(one, n, images)
                    category = one['category_id']
                    name = one.get('category_name', category)
                    if isinstance(name, str) and not name.isdecimal():
                        category = self._category_id(name)
                        self._named = True
                    yield {
                        **one,
                        'image_id': image_id,
                        'category_id': category,
                    }
            except (KeyError, OverflowError, TypeError, ValueError):
                raise UserError(
                    f'{self.path}: record {n} is not a detection of '
                    f'{self.format.name}: {short(record, 200)}',
                    'It needs image_id or file_name, and category_id, bbox '
                    'and score, or boxes, labels and scores.',
                ) from None

    def category_ids(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the ids of categories that are numbered as in the file."""
        start, _, names = (self.format.categories or '').partition(':')
        if self._named or (self.format.name == 'coco' and not start):
            return numbers
        seen = sorted({int(n) for n in np.unique(numbers) if np.isfinite(n)})
        start = start or self._start(seen)
        if start == 'ids':
            return numbers
        ids = [*self.truth.all_names]
        if names:
            ids = read_names(names)
        meaning = dict(enumerate(ids, int(start)))
        unknown = [n for n in seen if n not in meaning]
        if unknown:
            raise UserError(
                f'{self.path} has the category number {unknown[0]}, and there '
                f'are {len(ids)} categories, from {start}',
                f'Numbers of the file: {some(seen, 20)}. Give the names in '
                f'their order: --categories {start}:data.yaml.',
            )
        if names:
            # A detector may know classes that it never finds here.
            meaning = {n: self._category_id(meaning[n]) for n in seen}
        else:
            label = self.truth.all_names
            words = [f'{n} is {label[i]}' for n, i in meaning.items()]
            self.warnings.append(
                f'{self.path}: categories were read as numbers from {start} '
                f'in the order of the ids of {self.truth.path}: '
                f'{some(words, 4)}. If that is not their order: --categories '
                f'{start}:data.yaml.'
            )
        return np.array([meaning.get(n, n) for n in numbers.tolist()])

    def _start(self, seen: list[int]) -> str:
        """The only numbering that fits, or one of those that agree."""
        ids = [*self.truth.all_names]
        meanings = {
            'ids': {i: i for i in ids},
            '0': dict(enumerate(ids)),
            '1': dict(enumerate(ids, 1)),
        }
        fits = {
            start: [meaning[n] for n in seen]
            for start, meaning in meanings.items()
            if all(n in meaning for n in seen)
        }
        if not fits:
            raise UserError(
                f'{self.path} has category numbers that fit none of the '
                f'{len(ids)} categories of {self.truth.path} '
                f'({some(seen, 20)}; ids: {some(ids, 20)})',
                'Give the names in the order of the numbers: --categories '
                '0:data.yaml, or 1:data.yaml if they count from 1.',
            )
        first, *others = fits
        if any(fits[other] != fits[first] for other in others):
            words = {'0': 'numbers from 0', '1': 'numbers from 1'}
            raise UserError(
                f'{self.path}: its category numbers ({some(seen, 20)}) may be '
                + ' or '.join(words.get(start, start) for start in fits),
                f'Which? --categories {" or ".join(fits)}.',
            )
        return first

    def _category_id(self, name: str) -> int:
        ids = {name: i for i, name in self.truth.all_names.items()}
        if name not in ids:
            raise UserError(
                f'{self.path}: {name!r} is not a category of '
                f'{self.truth.path}',
                sentences(
                    did_you_mean(name, ids), f'It has: {some(ids, 20)}.'
                ),
            )
        return ids[name]

    def _image_id(
        self, record: dict, n: int, images: dict[str, int | None]
    ) -> int:
        key = next((k for k in _IMAGE_KEYS if k in record), 'image_id')
        value = record[key]
        if isinstance(value, int | float):
            if self.format.name != 'ultralytics':
                return value
            value = int(value)  # a stem of digits, which is not the id
        path = PurePosixPath(str(value).replace('\\', '/'))
        names = _endings(path)
        for name in names:
            if images.get(name) is not None:
                return images[name]
        problem = 'is not the name of an image'
        if any(name in images for name in names):
            problem = 'is the name of several images'
        listed = [name for name, i in images.items() if i is not None]
        raise UserError(
            f'{self.path}: record {n}: {key} {value!r} {problem} in '
            f'{self.truth.path}',
            sentences(
                did_you_mean(str(path), listed),
                f'It lists: {some(listed)}.' if listed else '',
                'Give the annotation file that the detections belong to.',
            ),
        )


def read_names(given: str) -> list[str]:
    """Returns the names in a file, or those that commas separate."""
    path = Path(given)
    if not os.path.isfile(path):  # also if the names are a long text
        if path.suffix in ('.yaml', '.yml', '.json', '.txt'):
            raise UserError(f'--categories: no file {path}', 'Check the path.')
        return [name.strip() for name in given.split(',')]
    data = documents.read_bytes(path)
    if path.suffix not in ('.yaml', '.yml', '.json'):
        lines = data.decode('utf-8-sig', 'replace').splitlines()
        return [line.strip() for line in lines if line.strip()]
    content = documents.parse_yaml(data, path)  # JSON too
    try:
        if isinstance(content, dict):
            content = content.get('names', content)
        if isinstance(content, dict):
            content = [content[key] for key in sorted(content, key=int)]
        if not all(isinstance(name, str | int) for name in content):
            content = None
    except (TypeError, ValueError):
        content = None
    if not isinstance(content, list) or not content:
        raise UserError(
            f'{path} has no list of names', "A data.yaml has 'names: [...]'."
        )
    return [str(name) for name in content]


def by_image(text: str, path: Path) -> list[dict]:
    """Parses an object of image -> {boxes, labels, scores} as records."""
    content = documents.parse_json(text, path)
    try:
        return [
            {
                'image_id': int(image) if image.isdecimal() else image,
                **{key: found[key] for key in ('boxes', 'labels', 'scores')},
            }
            for image, found in content.items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f'{path} is not a list of detections, and not an object of image '
            'and {boxes, labels, scores}',
            'Write the detections, not the metrics.',
        ) from None


def _flat(record: dict) -> Iterator[dict]:
    """Yields one record a detection, with ``bbox`` as COCO's."""
    if 'boxes' in record:
        image = {k: record[k] for k in _IMAGE_KEYS if k in record}
        parts = (record[k] for k in ('boxes', 'labels', 'scores'))
        for box, label, score in zip(*parts, strict=True):
            found = {'category_id': label, 'score': score}
            yield {**image, **found, 'bbox': _from_corners(box)}
    elif 'x_min' in record:  # supervision, which RF-DETR returns
        number = record['class_id']
        yield {
            **record,
            'category_id': number,
            'category_name': record.get('class_name') or number,
            'bbox': _from_corners(float(record[k]) for k in _CORNERS),
            'score': record['confidence'],
        }
    else:
        yield record


def _from_corners(corners: Iterable[float]) -> list[float]:
    x1, y1, x2, y2 = corners
    return [x1, y1, x2 - x1, y2 - y1]


def _endings(path: PurePosixPath) -> list[str]:
    """``a/b/1.jpg``, ``b/1.jpg``, ``1.jpg``, ``1``."""
    paths = [PurePosixPath(*path.parts[n:]) for n in range(len(path.parts))]
    return [*map(str, paths), path.stem]


def _image_names(truth: GroundTruth) -> dict[str, int | None]:
    """Name of a file, with or without folders and suffix -> id of the image.

    The value is None for a name of several images.
    """
    found: dict[str, int | None] = {}
    for image in truth.dataset['images']:
        text = str(image.get('file_name', '')).replace('\\', '/')
        path = PurePosixPath(text)
        names = {*_endings(path)}
        if path.stem.isdecimal():  # Ultralytics writes it as a number
            names.add(str(int(path.stem)))
        for name in sorted(names - {'', '.'}):
            same = found.setdefault(name, image['id']) == image['id']
            found[name] = image['id'] if same else None
    return found
