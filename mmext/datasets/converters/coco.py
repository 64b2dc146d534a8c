# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds annotation files in COCO's format and their images.

::

    COCO, CVAT     annotations/instances_train.json   train/, images/train/
    Roboflow       train/_annotations.coco.json       train/
    FiftyOne       train/labels.json                  train/data/
    Label Studio   result.json                        images/

Other splits are named in the same way, in any case, such as
``instances_Validation.json``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmext.datasets.coco import SECTIONS, read_coco
from mmext.datasets.converters.common import (
    CONVERTED,
    WORDS,
    Converted,
    entries,
    find_file,
    first_by_rank,
    folders_in,
    hold_out,
    is_converted,
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
PREFIX = re.compile('^(instances|person_keypoints)_', re.IGNORECASE)
#: Beginnings of names of COCO's files without boxes of objects.
OTHERS = ('captions', 'panoptic', 'stuff', 'image_info')
FOLDERS = ('annotations', 'labels')


def find_coco(root: Path, source: bool = False) -> dict[str, Path]:
    """Returns split -> annotation file; a file of all images is ``'all'``.

    With ``source``, files that mmext wrote do not count. Returns nothing if
    there is no such file. Raises `UserError` if several files have equal rank.
    """
    files = json_files(root)
    if source:
        files = (p for p in files if not is_converted(parse_json(p)))
    ranked = [(*_split_and_rank(root, path), path) for path in files]
    splits = {split for split, _, _ in ranked}
    if 'all' in splits:
        ranked = [
            (split, rank, path)
            for split, rank, path in ranked
            if split != 'all' or ('train' not in splits and _is_coco(path))
        ]
    return first_by_rank(ranked, 'annotation files')


def json_files(root: Path) -> Iterator[Path]:
    """Yields the JSON files at the places of annotation files."""
    inside = folders_in(root)
    inside += folders_in(root / 'annotations')
    for folder in (root, *inside):
        name = folder.name.lower()
        files = entries(folder)
        if folder.parent == root and split_of(name):
            files += entries(folder / 'annotations')
            files = [p for p in files if UNNAMED.fullmatch(p.stem)]
        elif folder != root and not split_of(name) and name not in FOLDERS:
            continue
        files = [p for p in files if p.suffix.lower() == '.json']
        yield from (p for p in files if not p.stem.lower().startswith(OTHERS))


def _is_coco(path: Path) -> bool:
    """Returns whether a file has the sections of COCO's format."""
    content = parse_json(path)
    if content is None:  # the reader says why
        return UNNAMED.fullmatch(path.stem) is not None
    return isinstance(content, dict) and content.keys() >= {*SECTIONS}


def _split_and_rank(root: Path, path: Path) -> tuple[str, tuple]:
    """Returns the split of an annotation file, and how sure it is."""
    stem = path.stem.lower()
    name = PREFIX.sub('', stem)
    keypoints = stem.startswith('person_keypoints')
    folders = path.relative_to(root).parts[-2::-1]
    words = re.split('[^a-z0-9]+', name)
    for place, names in enumerate(([name], folders, words)):
        if split := split_of(*names):
            suffix = name not in WORDS[split]
            return split, (keypoints, place, stem == name, suffix)
    return 'all', (keypoints, not UNNAMED.fullmatch(stem))


def image_folder(root: Path, ann_file: Path, split: str, content: Any) -> Path:
    """Returns the folder that has most of the first images of a file.
    Raises `UserError` if no folder has any.
    """
    stem = PREFIX.sub('', ann_file.stem)
    beside = ann_file.parent
    if beside.name.lower() == 'annotations':
        beside = beside.parent
    tops = [root, beside]
    middle = _inside(tops, ['images'])
    names = [stem.lower(), split, *WORDS.get(split, ())]
    splits = _inside([*tops, *middle], names)
    ends = _inside([*splits, beside], ['images', 'data'])
    places = dict.fromkeys([*splits, *ends, beside, *middle, root])
    files = [image['file_name'] for image in content['images'][:20]]
    found = {p: sum(bool(find_file(p, f)) for f in files) for p in places}
    if any(found.values()):
        return max(places, key=found.get)
    own = dict.fromkeys(
        n for n in (stem, split) if n != 'all' and not UNNAMED.fullmatch(n)
    )
    tried = [f'{top}{name}/' for top in ('', 'images/') for name in own]
    tried += dict.fromkeys(['images/', f'{beside.name}/'])
    raise UserError(
        f'no image of {ann_file} is in {root} ({", ".join(tried)}): '
        f'{some(files, 3)}',
        f'Put the images in {root / tried[0]}.',
    )


def _inside(folders: Iterable[Path], names: Iterable[str]) -> list[Path]:
    """Returns sub-folders by their lower-case names, in this order."""
    found = []
    for folder in folders:
        inside = folders_in(folder)
        found += [p for n in names for p in inside if p.name.lower() == n]
    return found


def read_coco_folder(
    root: Path, val_part: float, source: bool = False
) -> Converted:
    """Reads a train and a val split, with file names relative to ``root``.

    ``source`` is that of :func:`find_coco`. If there is no validation split, a
    fraction ``val_part`` of the images is held out, always the same ones.
    """
    files = find_coco(root, source)
    if not files.keys() & {'train', 'all'}:
        raise UserError(
            f'{root} has annotations to validate or test '
            f'({some(p.name for p in files.values())}) and none to train',
            'Name the file of the training data instances_train.json.',
        )
    contents = {
        'val' if name == 'val' else 'train': _read(root, files[name], name)
        for name in ('train', 'all', 'val')
        if name in files
    }
    notes: list[str] = []
    if 'val' not in contents:
        content = contents['train']
        images = sorted(content['images'], key=lambda i: i['file_name'])
        parts = hold_out(images, val_part, notes)
        contents = {s: _part(content, images) for s, images in parts.items()}
    return Converted(contents, root, notes)


def _read(root: Path, file: Path, split: str) -> dict[str, Any]:
    """Reads a file; names of images begin with their folder."""
    content = read_coco(file, repeated_names=True)
    folder = image_folder(root, file, split, content)
    info = content.get('info')
    info = dict(info) if isinstance(info, dict) else {}
    images = []
    for image in content['images']:
        name = image['file_name']
        path = find_file(folder, name) or folder / name
        if path.is_relative_to(root):
            path = path.relative_to(root)
        images.append({**image, 'file_name': path.as_posix()})
    info['description'] = f'{CONVERTED} {root.name}'
    return {**content, 'images': images, 'info': info}


def _part(content: dict[str, Any], images: list[dict]) -> dict[str, Any]:
    """Returns the annotations of some of the images."""
    ids = {image['id'] for image in images}
    annotations = [a for a in content['annotations'] if a['image_id'] in ids]
    return {**content, 'images': images, 'annotations': annotations}
