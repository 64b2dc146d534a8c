# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds annotations and images in a folder as people have them.

Expected are annotations of two splits and their images::

    annotations/instances_train.json    train/*.jpg
    annotations/instances_val.json      val/*.jpg

Names may continue after ``train`` and ``val`` (``instances_train2017.json``),
the annotation files may lie in the folder itself, and the images in
``images/``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mmext.checks.annotations import check_files
from mmext.checks.classes import check_classes
from mmext.checks.data import check_order
from mmext.checks.findings import Split, require
from mmext.checks.images import check_presence, image_paths
from mmext.datasets.coco import read_coco
from mmext.datasets.coco_folder import CocoFolder
from mmext.datasets.shapes.generate import cached_shapes
from mmext.errors import UserError

SPLITS = ('train', 'val')


def find_coco_folder(
    root: str | Path,
    classes: Sequence[str] | None = None,
    masks: bool = False,
) -> CocoFolder:
    """Finds and checks a data set.

    Args:
        root: The folder.
        classes: Categories to use, in any order. Default: all of the JSON.
        masks: Whether every annotation must have a mask. Default: False.

    Raises:
        UserError: If the folder, a file in it or its content is not what
            training needs.
    """
    splits, contents = find_splits(root, masks)
    chosen = in_file_order(classes, contents['train'])
    splits = [replace(split, classes=chosen) for split in splits]
    findings = list(check_order(*splits, contents))
    for split in splits:
        content = contents[split.name]
        findings += check_files(content, split)
        findings += check_presence(image_paths(content, split), split)[0]
        findings += check_classes(content, split)
    require(findings)
    return CocoFolder(
        classes=chosen,
        ann_files={s.name: str(s.ann_file) for s in splits},
        img_dirs={s.name: str(s.img_dir) for s in splits},
        num_images={n: len(c['images']) for n, c in contents.items()},
    )


def in_file_order(
    classes: Sequence[str] | None, content: dict
) -> tuple[str, ...]:
    """Class names as mmdet numbers them; unknown ones last.

    Args:
        classes: Names in any order. Default: all of the file.
        content: Of an annotation file.
    """
    names = [c['name'] for c in content['categories']]
    wanted = names if classes is None else classes
    unknown = [name for name in wanted if name not in names]
    return (*(name for name in names if name in wanted), *unknown)


def find_splits(
    root: str | Path, masks: bool = False
) -> tuple[list[Split], dict[str, dict]]:
    """Finds the files of a folder, without judging what is in them.

    Args:
        root: The folder.
        masks: Whether masks are needed. Default: False.

    Returns:
        Training and validation, and their annotations by name.

    Raises:
        UserError: If annotations or images are not found, an annotation
            file cannot be read, or both splits have the same.
    """
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise UserError(
            f'data folder {root} '
            + ('is a file' if root.exists() else 'does not exist'),
            'name the folder that holds annotations/ and the images',
        )
    files = {name: _find_annotations(root, name) for name in SPLITS}
    if files['train'] == files['val']:
        raise UserError(
            f'{files["val"]} is all there is for both train and val',
            'write two files, of images to train and of others to validate',
        )
    splits, contents = [], {}
    for name, ann_file in files.items():
        contents[name] = read_coco(ann_file)
        splits.append(
            Split(
                name=name,
                ann_file=ann_file,
                img_dir=_find_images(root, ann_file, name, contents[name]),
                masks=masks,
                training=name == 'train',
                filter_empty=True,
                root=root,
            )
        )
    return splits, contents


def data_of_environment(masks: bool = False) -> dict:
    """For configs: the folder that ``$MMEXT_DATA`` names.

    Where it names none, a few generated shapes stand in. ``$MMEXT_CLASSES``
    chooses categories, separated by commas.

    Args:
        masks: Whether every annotation must have a mask. Default: False.

    Returns:
        The fields of :class:`CocoFolder`, which a config can dump.
    """
    root = os.environ.get('MMEXT_DATA') or cached_shapes(16, 8)
    classes = os.environ.get('MMEXT_CLASSES', '').split(',')
    names = [name.strip() for name in classes if name.strip()]
    return asdict(find_coco_folder(root, names or None, masks))


def _find_annotations(root: Path, split: str) -> Path:
    for pattern in (f'instances_{split}', f'instances_{split}*', f'*{split}*'):
        for folder in (root / 'annotations', root):
            found = sorted(folder.glob(f'{pattern}.json'))
            if found:
                return min(found, key=lambda p: len(p.name))
    here = sorted(
        str(p.relative_to(root))
        for p in [*root.glob('*'), *root.glob('annotations/*')]
    )
    raise UserError(
        f'{root} has no annotations/instances_{split}.json; it holds '
        + (', '.join(here[:8]) + ', ...' * (len(here) > 8) or 'nothing'),
        'name a folder in COCO format; tools/dataset_converters writes one '
        'from VOC or YOLO files',
    )


def _find_images(
    root: Path, ann_file: Path, split: str, content: dict
) -> Path:
    stem = ann_file.stem.removeprefix('instances_')
    names = dict.fromkeys([stem, split])
    places = [
        *(root / name for name in names),
        *(root / 'images' / name for name in names),
        *(root / name / 'images' for name in names),
        root / 'images',
        root,
    ]
    names = [image['file_name'] for image in content['images'][:20]]
    found = [sum((place / n).is_file() for n in names) for place in places]
    if any(found):
        return places[found.index(max(found))]
    tried = ', '.join(str(p.relative_to(root)) + '/' for p in places)
    raise UserError(
        f'image {names[0]} of {ann_file} is not in {root} ({tried})',
        f'put the images in {root / stem}/',
    )
