# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Small records, and files that are not quite records."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmext.evaluation.coco.matching import ClassMatches, Matches
from mmext.experiments.records.record import Record, write_record
from mmext.utils.arrays import write_arrays

IMAGES = 20


def make_matches(seed: int = 0, images: int = IMAGES) -> Matches:
    """An object of each of two classes in an image, most of them found."""
    rng = np.random.default_rng(seed)
    classes = []
    for _ in range(2):
        image = np.repeat(np.arange(images, dtype=np.int32), 2)
        order = rng.permutation(len(image))
        first = np.arange(len(image)) % 2 == 0
        hit = np.where(first & (rng.random(len(image)) < 0.8), 1023, 0)
        rank = np.empty(len(image), np.int16)
        seen = dict.fromkeys(range(images), 0)
        for place in order:
            rank[place] = seen[int(image[place])]
            seen[int(image[place])] += 1
        hit = hit[order].astype(np.uint16)[None]
        score = np.linspace(0.9, 0.1, len(image))
        ignored = np.zeros_like(hit)
        classes.append(
            ClassMatches(image[order], score, rank[order], hit, ignored)
        )
    objects = np.ones((images, 2, 1), np.int32)
    return Matches(('square', 'disc'), ('all',), objects, tuple(classes))


def make_record(**changes: Any) -> Record:
    """A record of boxes."""
    values: dict[str, Any] = {
        'task': 'bbox',
        'results': make_matches(changes.get('seed', 1)),
        'images': tuple(map(str, range(IMAGES))),
        'side': 'ResNet-18',
        'seed': 1,
        'data_sha256': 'd' * 64,
        'config_sha256': 'c' * 64,
        'started': '2026-01-01T08:00:00+00:00',
        'finished': '2026-01-01T09:30:00+00:00',
        'metrics': {'coco/bbox_mAP': 0.5},
        'curves': {'loss': [[1, 2.0], [2, 1.5]]},
        **changes,
    }
    return Record(**values)


def parts(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The description and the arrays of a record, unchecked."""
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files}
    return json.loads(arrays.pop('description').tobytes()), arrays


def damage(
    path: Path,
    change: Callable[[dict, dict[str, np.ndarray]], object],
    sealed: bool = True,
) -> Path:
    """Writes a record whose content was changed.

    ``sealed``: with the right checksum, as a program with a fault would
    write it.
    """
    write_record(path, make_record())
    description, arrays = parts(path)
    if sealed:
        del description['checksum']
    change(description, arrays)
    if sealed:
        kind, version = (description.pop(k) for k in ('format', 'version'))
        write_arrays(path, kind, version, description, arrays)
    else:
        text = json.dumps(description).encode()
        arrays['description'] = np.frombuffer(text, np.uint8)
        np.savez_compressed(path, **arrays)
    return path


def bomb(path: Path) -> Path:
    """A file of kilobytes that unpacks to 2 GiB."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('image.npy', bytes(1 << 25))
        for i in range(1, 64):  # the same bytes again
            again = copy.copy(archive.filelist[0])
            again.filename = f'image{i}.npy'
            archive.filelist.append(again)
    return path
