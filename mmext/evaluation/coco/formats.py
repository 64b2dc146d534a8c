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

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.coco.ground_truth import GroundTruth
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

    Raises:
        UserError: A value is not one of these.
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


def format_of(
    source: object, formats: Iterable[str], categories: Iterable[str]
) -> Format:
    """Returns the format of a source from ``[FILE=]VALUE`` options.

    A value that names the source's file precedes one without a file.
    """
    values = []
    for options in (formats, categories):
        chosen = dict(option.rpartition('=')[::2] for option in options)
        values.append(chosen.get(str(source), chosen.get('')))
    return Format(values[0] or 'coco', values[1])


class Reader:
    """Reads the records of one file as COCO's.

    Args:
        path: The file, for messages.
        truth: Ground truth that it belongs to.
        file_format: How it is written.
    """

    def __init__(
        self, path: Path, truth: GroundTruth, file_format: Format
    ) -> None:
        self.path, self.truth, self.format = path, truth, file_format
        self.warnings: list[str] = []
        self._ids = list(truth.all_names)
        self._named = {name: i for i, name in truth.all_names.items()}

    def records(self, found: Iterable[dict]) -> Iterator[dict]:
        """Yields COCO's records, whose categories are still as written."""
        if self.format.name == 'coco':
            yield from found
            return
        images = _Images(self.truth, self.format.name == 'ultralytics')
        for n, record in enumerate(found):
            try:
                for one in _flat(record):
                    category = one['category_id']
                    name = one.get('category_name', category)
                    if isinstance(name, str) and not name.isdecimal():
                        category = self._id_of(name)
                    yield {
                        **one,
                        'image_id': images.id_of(one, self.path, n),
                        'category_id': category,
                    }
            except (KeyError, TypeError, ValueError):
                raise UserError(
                    f'{self.path}: record {n} is not a detection of '
                    f'{self.format.name}: {short(record, 200)}',
                    'It needs image_id or file_name, and category_id, bbox '
                    'and score, or boxes, labels and scores.',
                ) from None

    def category_ids(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the ids of categories that are numbered as in the file."""
        given = self.format.categories or (
            'ids' if self.format.name == 'coco' else ''
        )
        start, _, names = given.partition(':')
        if start == 'ids':
            return numbers
        seen = {int(n) for n in np.unique(numbers) if np.isfinite(n)}
        start = start or self._start(seen)
        if start == 'ids':
            return numbers
        ids = self._ids
        if names:
            ids = [self._id_of(name) for name in read_names(names)]
        meaning = dict(enumerate(ids, int(start)))
        unknown = sorted(seen - meaning.keys())
        if unknown:
            raise UserError(
                f'{self.path} has the category number {unknown[0]}, and there '
                f'are {len(ids)} categories, from {start}',
                f'Numbers of the file: {some(sorted(seen), 20)}. Give the '
                f'names in their order: --categories {start}:data.yaml.',
            )
        if not names:
            label = self.truth.all_names
            words = [f'{n} is {label[i]}' for n, i in meaning.items()]
            self.warnings.append(
                f'{self.path}: categories were read as numbers from {start} '
                f'in the order of the ids of {self.truth.path}: '
                f'{some(words, 4)}. If that is not their order: --categories '
                f'{start}:data.yaml.'
            )
        return np.array([meaning.get(n, n) for n in numbers.tolist()])

    def _start(self, seen: set[int]) -> str:
        """The only numbering that fits.

        Raises:
            UserError: Several fit, with different results, or none.
        """
        count = len(self._ids)
        meanings = {
            'ids': {i: i for i in self._ids},
            '0': dict(enumerate(self._ids)),
            '1': dict(enumerate(self._ids, 1)),
        }
        fits = {
            start: [meaning[n] for n in sorted(seen)]
            for start, meaning in meanings.items()
            if seen <= meaning.keys()
        }
        if len({tuple(ids) for ids in fits.values()}) == 1:
            return next(iter(fits))
        numbers = some(sorted(seen), 20)
        if not fits:
            raise UserError(
                f'{self.path} has category numbers that fit none of the '
                f'{count} categories of {self.truth.path} ({numbers}; ids: '
                f'{some(self._ids, 20)})',
                'Give the names in the order of the numbers: --categories '
                '0:data.yaml, or 1:data.yaml if they count from 1.',
            )
        raise UserError(
            f'{self.path}: its category numbers ({numbers}) may be '
            + ' or '.join(
                'ids' if start == 'ids' else f'numbers from {start}'
                for start in fits
            ),
            f'Which? --categories {" or ".join(fits)}.',
        )

    def _id_of(self, name: str) -> int:
        if name not in self._named:
            raise UserError(
                f'{self.path}: {name!r} is not a category of '
                f'{self.truth.path}',
                sentences(
                    did_you_mean(name, self._named),
                    f'It has: {some(self._named, 20)}.',
                ),
            )
        return self._named[name]


def read_names(given: str) -> list[str]:
    """Returns the names in a file, or those that commas separate."""
    path = Path(given)
    if not path.is_file():
        if path.suffix in ('.yaml', '.yml', '.json', '.txt'):
            raise UserError(f'--categories: no file {path}', 'Check the path.')
        return [name.strip() for name in given.split(',')]
    text = path.read_text(encoding='utf-8-sig')
    if path.suffix not in ('.yaml', '.yml', '.json'):
        return [line.strip() for line in text.splitlines() if line.strip()]
    import yaml

    content = yaml.safe_load(text)  # JSON too
    names = content.get('names', content) if type(content) is dict else content
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names:
        raise UserError(
            f'{path} has no list of names', "A data.yaml has 'names: [...]'."
        )
    return [str(name) for name in names]


def by_image(text: str, path: Path) -> list[dict]:
    """Parses an object of image -> {boxes, labels, scores} as records."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(
        isinstance(v, dict) and 'boxes' in v for v in content.values()
    ):
        raise UserError(
            f'{path} is not a list of detections, and not an object of image '
            'and {boxes, labels, scores}',
            'Write the detections, not the metrics.',
        )
    return [
        {'image_id': int(k) if k.isdecimal() else k, **v}
        for k, v in content.items()
    ]


def _flat(record: dict) -> Iterator[dict]:
    """Yields one record a detection, with ``bbox`` as COCO's."""
    if 'boxes' in record:
        image = {k: record[k] for k in _IMAGE_KEYS if k in record}
        parts = (record[k] for k in ('boxes', 'labels', 'scores'))
        for (x1, y1, x2, y2), label, score in zip(*parts, strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            yield {
                **image,
                'category_id': label,
                'bbox': box,
                'score': score,
            }
    elif 'x_min' in record:  # supervision, which RF-DETR returns
        x1, y1, x2, y2 = (float(record[k]) for k in _CORNERS)
        found = {
            'category_id': record['class_id'],
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'score': record['confidence'],
        }
        if record.get('class_name'):
            found['category_name'] = record['class_name']
        yield {**record, **found}
    else:
        yield record


class _Images:
    """Finds images by their number or the name of their file."""

    def __init__(self, truth: GroundTruth, by_stem: bool) -> None:
        self._truth, self._by_stem = truth, by_stem
        self._ids = {*truth.image_ids.tolist()}
        self._by_name: dict[str, int | None] = {}
        for image in truth.dataset['images']:
            path = Path(str(image.get('file_name', '')).replace('\\', '/'))
            names = {str(path), path.name, path.stem}
            if path.stem.isdecimal():  # Ultralytics writes it as a number
                names.add(str(int(path.stem)))
            for name in names - {'', '.'}:
                # None if it is the name of several images.
                other = self._by_name.get(name, image['id'])
                same = other == image['id']
                self._by_name[name] = image['id'] if same else None

    def id_of(self, record: dict, path: Path, n: int) -> int:
        key = next(k for k in _IMAGE_KEYS if k in record)
        value = record[key]
        number = isinstance(value, int | float)
        if number and not self._by_stem:
            return value
        name = str(int(value) if number else value).replace('\\', '/')
        for known in (name, Path(name).name, Path(name).stem):
            if self._by_name.get(known) is not None:
                return self._by_name[known]
        problem = (
            'is the name of several images'
            if name in self._by_name or Path(name).name in self._by_name
            else 'is not the name of an image'
        )
        listed = [n for n, i in self._by_name.items() if i is not None]
        raise UserError(
            f'{path}: record {n}: {key} {value!r} {problem} in '
            f'{self._truth.path}',
            sentences(
                did_you_mean(name, listed),
                f'It lists: {some(listed)}.' if listed else '',
                'Give the annotation file that the detections belong to.',
            ),
        )
