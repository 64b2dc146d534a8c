# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds annotation files in COCO's format and their images.

::

    COCO, CVAT     annotations/instances_train.json   train/, images/train/
    Roboflow       train/_annotations.coco.json       train/
    FiftyOne       train/labels.json                  train/data/
    Label Studio   result.json                        images/

Other splits are named alike, in any case: ``instances_Validation.json``.
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmext.datasets.coco import SECTIONS, read_coco
from mmext.datasets.converters.common import (
    CONVERTED,
    VAL_PART,
    WORDS,
    Converted,
    held_out_note,
    hold_out,
    parse_json,
    split_of,
)
from mmext.errors import UserError
from mmext.utils.text import some

#: Names of annotation files that do not name their split.
UNNAMED = re.compile(
    r'_annotations\.coco|annotations?|labels|result|instances(_default)?|'
    r'.*coco.*',
    re.IGNORECASE,
)
#: Beginnings of names of COCO's files without boxes of objects.
OTHERS = ('captions', 'panoptic', 'stuff', 'image_info')


def find_coco(root: Path) -> dict[str, Path]:
    """Returns split -> annotation file; a file of all images is ``'all'``.

    Returns nothing if there is no such file. Raises `UserError` if several
    files have equal rank.
    """
    ranked: dict[str, dict[int, list[Path]]] = {}
    for path in _candidates(root):
        if path.stem.lower().startswith(OTHERS):
            continue
        split, rank = _split_and_rank(root, path)
        if split != 'all' or _is_coco(path):
            ranked.setdefault(split, {}).setdefault(rank, []).append(path)
    found = {}
    if 'train' in ranked:
        ranked.pop('all', None)
    for split, ranks in ranked.items():
        best = ranks[min(ranks)]
        if len(best) > 1:
            names = some(str(p.relative_to(root)) for p in best)
            raise UserError(
                f'{root} has several annotation files for '
                f'{"all images" if split == "all" else split}: {names}',
                'Keep one, and move the others to another folder.',
            )
        found[split] = best[0]
    return found


def _candidates(root: Path) -> Iterator[Path]:
    named = [w for words in WORDS.values() for w in words]
    for folder in sorted(p for p in [root, *root.glob('*')] if p.is_dir()):
        name = folder.name.lower()
        if folder == root or name in ('annotations', 'labels'):
            yield from folder.glob('*.json')
        if name in named or split_of(name):
            files = [
                *folder.glob('*.json'),
                *folder.glob('annotations/*.json'),
            ]
            yield from (p for p in files if UNNAMED.fullmatch(p.stem))
    for folder in root.glob('annotations/*/'):
        if split_of(folder.name):
            yield from folder.glob('*.json')


def _is_coco(path: Path) -> bool:
    """Returns whether a file has the sections of COCO's format."""
    content = parse_json(path)
    if content is None:  # the reader says why
        return UNNAMED.fullmatch(path.stem) is not None
    return isinstance(content, dict) and content.keys() >= {*SECTIONS}


def _split_and_rank(root: Path, path: Path) -> tuple[str, int]:
    """Returns the split of an annotation file, and how sure it is."""
    stem = path.stem.lower()
    name = stem.removeprefix('instances_')
    split = split_of(name)
    if stem.startswith('person_keypoints'):
        return split_of(name.removeprefix('person_keypoints_')) or 'all', 8
    if split:
        exact = name in WORDS[split]
        return split, (0 if stem != name else 2) + (0 if exact else 1)
    folders = path.relative_to(root).parts[:-1]
    split = next(filter(None, map(split_of, reversed(folders))), None)
    if split:
        return split, 4
    words = map(split_of, re.split(r'[^a-z0-9]+', name))
    split = next(filter(None, words), None)
    if split:
        return split, 5
    return ('all', 6) if UNNAMED.fullmatch(stem) else ('all', 7)


def find_images(root: Path, ann_file: Path, split: str, content: Any) -> Path:
    """Returns the folder that has most of the first images of a file."""
    stem = ann_file.stem.lower().removeprefix('instances_')
    names = dict.fromkeys([stem, split, *WORDS.get(split, ())])
    beside = ann_file.parent
    if beside.name.lower() == 'annotations':
        beside = beside.parent
    tops = dict.fromkeys([root, beside])
    middle = [p for top in tops for p in _inside(top, ('images',))]
    splits = [p for top in [*tops, *middle] for p in _inside(top, names)]
    kinds = ('images', 'data')
    ends = [p for top in (*splits, beside) for p in _inside(top, kinds)]
    places = list(dict.fromkeys([*splits, *ends, beside, *middle, root]))
    files = [image['file_name'] for image in content['images'][:20]]
    found = [sum(_is_there(place, f) for f in files) for place in places]
    if any(found):
        return places[found.index(max(found))]
    own = dict.fromkeys([ann_file.stem.removeprefix('instances_'), split])
    tried = [f'{top}{name}/' for top in ('', 'images/') for name in own]
    raise UserError(
        f'image {files[0]} of {ann_file} is not in {root} '
        f'({", ".join(tried)}, images/ or {beside.name}/)',
        f'Put the images in {root / tried[0]}.',
    )


def _inside(folder: Path, names: Iterable[str]) -> list[Path]:
    """Returns the sub-folders with these names, in any case, in this order."""
    by_name: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.glob('*') if p.is_dir()):
        by_name.setdefault(path.name.lower(), []).append(path)
    return [path for name in names for path in by_name.get(name, [])]


def _is_there(folder: Path, name: str) -> bool:
    """Whether an image is in a folder, however its name is written.

    Backslashes and composed letters are reported by the checks.
    """
    name = name.replace('\\', '/')
    forms = {name, *(unicodedata.normalize(f, name) for f in ('NFC', 'NFD'))}
    return any((folder / form).is_file() for form in forms)


def read_coco_folder(root: Path, val_part: float = VAL_PART) -> Converted:
    """Reads a train and a val split, with file names relative to ``root``.

    If there is no validation split, a fraction ``val_part`` of the images is
    held out, always the same ones.
    """
    files = find_coco(root)
    notes: list[str] = []
    contents = {}
    for split in [s for s in ('train', 'all', 'val') if s in files]:
        content = read_coco(files[split], repeated_names=True)
        folder = find_images(root, files[split], split, content)
        contents[split] = _moved(content, folder.relative_to(root))
    contents['train'] = contents.pop('all', None) or contents.get('train')
    if contents['train'] is None:
        raise UserError(
            f'{root} has annotations to validate ({files["val"].name}) and '
            'none to train',
            'Name the file of the training data instances_train.json.',
        )
    if 'val' not in contents:
        content = contents['train']
        images = sorted(content['images'], key=lambda i: i['file_name'])
        parts = dict(
            zip(('train', 'val'), hold_out(images, val_part), strict=True)
        )
        notes.append(held_out_note(parts))
        contents = {s: _part(content, images) for s, images in parts.items()}
    info = {'description': f'{CONVERTED} {root.name}'}
    contents = {
        s: {**contents[s], 'info': {**_info(contents[s]), **info}}
        for s in ('train', 'val')
    }
    return Converted(contents, root, notes)


def _info(content: Mapping[str, Any]) -> Mapping[str, Any]:
    info = content.get('info')
    return info if isinstance(info, Mapping) else {}


def _moved(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns a copy whose file names begin with the folder of the images."""
    content = copy.copy(content)
    content['images'] = [
        {**image, 'file_name': (folder / image['file_name']).as_posix()}
        for image in content['images']
    ]
    return content


def _part(content: dict[str, Any], images: list[dict]) -> dict[str, Any]:
    """Returns the annotations of some of the images."""
    ids = {image['id'] for image in images}
    annotations = [a for a in content['annotations'] if a['image_id'] in ids]
    return {**content, 'images': images, 'annotations': annotations}
