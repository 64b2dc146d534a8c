# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds out in which format a folder is, and reads it as COCO."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmext.datasets.converters.coco import (
    OTHERS,
    find_coco,
    read_coco_folder,
)
from mmext.datasets.converters.common import (
    VAL_PART,
    Converted,
    entries,
    folders_in,
    require_classes,
)
from mmext.datasets.converters.voc import is_voc, read_voc
from mmext.datasets.converters.write import to_coco, write_folder
from mmext.datasets.converters.yolo import is_yolo, read_yolo
from mmext.errors import UserError, printable
from mmext.utils.images import files_in, is_image
from mmext.utils.text import count, some

SPLITS = ('train', 'val')
#: Tool -> what is in the JSON files of its own format.
TOOLS = {
    'LabelMe': b'"shapes"',
    'VIA': b'"regions"',
    'Supervisely': b'"objects"',
}
TESTS = {'yolo': is_yolo, 'voc': is_voc}


def format_of(root: Path, source: bool = False) -> str:
    """Returns ``'coco'``, ``'yolo'`` or ``'voc'``.

    ``root`` is a folder, or the YAML file of a YOLO data set. With
    ``source``, annotations that mmext wrote do not count if there are others.
    Raises `UserError` if nothing was found, with what the folder holds.
    """
    if root.is_file() and root.suffix.lower() in ('.yaml', '.yml'):
        return 'yolo'
    if not root.is_dir():
        raise UserError(
            f'data folder {root} '
            + ('is a file' if root.exists() else 'does not exist'),
            'Give the folder that holds the annotations and the images.',
        )
    if _has_source(root) if source else find_coco(root):
        return 'coco'
    for name, test in TESTS.items():
        if test(root):
            return name
    if source and find_coco(root):
        return 'coco'
    raise _nothing_found(root)


def _has_source(root: Path) -> bool:
    """Returns whether there are COCO annotations that mmext did not write."""
    return bool(find_coco(root, source=True).keys() & {'train', 'all'})


def _data_sets_in(root: Path, depth: int = 3) -> list[Path]:
    """Returns the data sets in sub-folders, which an archive may have made."""
    found = []
    for folder in folders_in(root):
        if _is_data_set(folder):
            found.append(folder)
        elif depth > 1:
            found += _data_sets_in(folder, depth - 1)
    return found


def _is_data_set(folder: Path) -> bool:
    try:
        if find_coco(folder) or is_yolo(folder):
            return True
    except UserError:
        return False
    # XML files alone may belong to images beside the folder.
    return is_voc(folder) and any(map(is_image, files_in(folder)))


def _nothing_found(root: Path) -> UserError:
    inside = [p.name for p in entries(root)]
    problem = (
        f'{root} has no annotations/instances_train.json, no labels of YOLO '
        'and no XML files of VOC; it holds ' + (some(inside, 8) or 'nothing')
    )
    if sets := _data_sets_in(root):
        return UserError(problem, f'Give one of these: {some(sets)}')
    files = files_in(root)
    jsons = [p for p in files if p.suffix == '.json']
    for path in jsons:
        if path.name.startswith(OTHERS):
            return UserError(
                f'{path} has no boxes of objects: {path.stem.split("_")[0]} '
                'annotations are not read',
                "Give a folder with COCO's instances_train.json, or labels of "
                'YOLO or VOC.',
            )
    for path in files:
        if path.suffix.lower() == '.xml':
            folder = path.parent.relative_to(root)
            return UserError(
                f'{root} has XML files in {folder}/, which is not a usual '
                'name for those of VOC',
                f'If they are of VOC: mmext convert voc {root} --annotations '
                f'{folder} --images DIR',
            )
    ends = [path.read_bytes() for path in jsons[:1] + jsons[-1:]]
    for tool, mark in TOOLS.items():
        if any(mark in content for content in ends):
            return UserError(
                f'{root} has {count(len(jsons), "JSON file")} of {tool}, '
                'whose own format is not read',
                f'Export the annotations of {tool} as COCO or YOLO.',
            )
    if images := sum(map(is_image, files)):
        problem += f' and {count(images, "image")}'
    return UserError(
        problem,
        'Give a folder in the format of COCO, YOLO or VOC. docs/data.md '
        'shows the layouts.',
    )


def read_folder(
    root: Path,
    kind: str,
    *,
    classes: Sequence[str] | None = None,
    val_part: float = VAL_PART,
    zero_based: bool = False,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    source: bool = False,
) -> Converted:
    """Reads a folder of a format that :func:`format_of` returns.

    ``source`` is that of
    :func:`~mmext.datasets.converters.coco.find_coco`.
    ``classes`` are those to keep (None is all, also those without objects). A
    fraction ``val_part`` of the images, always the same ones, is held out if
    there is no validation split. The other options are those of
    :func:`~mmext.datasets.converters.voc.read_voc`.
    """
    root = Path(os.path.abspath(root))
    if kind == 'coco':
        found = read_coco_folder(root, val_part, source)
        if not classes:
            return found
        contents = {
            split: _of_classes(content, classes, root)
            for split, content in found.contents.items()
        }
        return replace(found, contents=contents)
    if kind == 'yolo':
        data = read_yolo(root)
        root = root.parent if root.is_file() else root
    else:
        data = read_voc(root, zero_based, annotations, images)
    return to_coco(data, root, classes or data.names, val_part)


def _of_classes(
    content: dict[str, Any], classes: Sequence[str], root: Path
) -> dict[str, Any]:
    """Returns a content with some of the categories."""
    ids = {c['name']: c['id'] for c in content['categories']}
    require_classes(classes, ids, root)
    kept = {ids[name] for name in classes}
    return {
        **content,
        'categories': [c for c in content['categories'] if c['id'] in kept],
        'annotations': [
            a for a in content['annotations'] if a['category_id'] in kept
        ],
    }


def _require_format(root: Path, kind: str) -> None:
    """Raises `UserError` if a folder is in another format than ``kind``."""
    if root.is_file() or TESTS[kind](root):
        return
    try:
        found = format_of(root).upper()
    except UserError:
        return  # the reader says what it needs
    raise UserError(
        f'{root} has {found} annotations, and none of {kind.upper()}',
        f'mmext convert {root} finds the format out.',
    )


def convert_folder(
    root: Path,
    kind: str | None = None,
    out: Path | None = None,
    **options: Any,
) -> list[str]:
    """Writes ``annotations/instances_{train,val}.json`` for a folder.

    Args:
        root: The folder, or the YAML file of a YOLO data set.
        kind: See :func:`format_of`. Default: what it returns.
        out: Folder to write to; images are copied unless it is ``root``.
            Default: the folder.
        options: Those of :func:`read_folder`.

    Returns:
        Lines to print: what was found and written.

    Raises:
        UserError: The folder cannot be read, or a file that mmext did not
            write would be replaced. Nothing was written.
    """
    root = Path(os.path.abspath(root))
    if kind is None:
        kind = format_of(root, source=True)
    elif not options.get('annotations'):
        _require_format(root, kind)
    # Only converted annotations may be left.
    source = kind == 'coco' and _has_source(root)
    converted = read_folder(root, kind, source=source, **options)
    root = root.parent if root.is_file() else root
    out = Path(os.path.abspath(out or root))
    lines = [f'{root}: {kind.upper()} annotations']
    if kind == 'coco' and out == root and not options.get('classes'):
        usual = {s: out / f'annotations/instances_{s}.json' for s in SPLITS}
        if usual.items() <= find_coco(root, source).items():
            return [*lines, 'There is nothing to convert.']
    files = write_folder(converted, root, out)
    lines += [printable(f'note: {note}') for note in converted.notes]
    for split, path in files.items():
        content = converted.contents[split]
        lines.append(
            f'{path}: {count(len(content["images"]), "image")}, '
            f'{count(len(content["annotations"]), "object")}, '
            f'{count(len(content["categories"]), "class", "classes")}'
        )
    return lines
