# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A user's folder in COCO format, and a config turned to it.

Expected are annotations of two splits and their images::

    annotations/instances_train.json    train/*.jpg
    annotations/instances_val.json      val/*.jpg

Names may go on after ``train`` and ``val`` (``instances_train2017.json``), the
annotation files may lie in the folder itself, and the images in ``images/``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmext.datasets.check_annotations import check_files
from mmext.datasets.check_data import check_order
from mmext.datasets.check_images import check_presence, image_paths
from mmext.datasets.checks import Split, check_classes, read_coco, require
from mmext.datasets.shapes_dataset import cached_shapes
from mmext.errors import UserError

SPLITS = ('train', 'val')


@dataclass(frozen=True)
class CocoFolder:
    """What was found in a folder; paths are absolute.

    Args:
        classes: Names in the order of the JSON, which is the order of labels.
        ann_files: Split -> annotation file.
        img_dirs: Split -> folder that its file names are relative to.
        num_images: Split -> number of images.
    """

    classes: tuple[str, ...]
    ann_files: dict[str, str]
    img_dirs: dict[str, str]
    num_images: dict[str, int]


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


def use_coco_folder(cfg: Config, folder: CocoFolder) -> None:
    """Turns a config to a user's data, in place.

    The data sets become mmdet's ``CocoDataset`` with the pipelines and the
    wrappers (``RepeatDataset``, ...) that they had, the evaluators read the
    folder's annotations, and every ``num_classes`` of the model becomes the
    number of its classes.

    Args:
        cfg: A detection config with train and val loaders.
        folder: See :func:`find_coco_folder`.

    Raises:
        UserError: If a loader's data set is several.
    """
    for key, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        new = ConfigDict(
            type='CocoDataset',
            ann_file=folder.ann_files[split],
            data_prefix={'img': folder.img_dirs[split]},
            metainfo={'classes': folder.classes},
            test_mode=split == 'val',
        )
        if key == 'train':
            new.filter_cfg = ConfigDict(filter_empty_gt=True, min_size=1)
        loader = cfg[f'{key}_dataloader']
        loader.dataset = _replaced(loader.dataset, new)
    for key in ('val_evaluator', 'test_evaluator'):
        cfg[key] = ConfigDict(
            type='CocoMetric',
            ann_file=folder.ann_files['val'],
            metric=cfg[key].get('metric', 'bbox'),
        )
    set_num_classes(cfg.model, len(folder.classes))


def _replaced(old: ConfigDict, new: ConfigDict) -> ConfigDict:
    """``new`` with the pipeline and in the wrappers of ``old``."""
    if 'dataset' in old:
        return ConfigDict({**old, 'dataset': _replaced(old.dataset, new)})
    if 'pipeline' not in old:
        raise UserError(
            f'a data set of type {old.type} has no pipeline of its own',
            'use_coco_folder needs a config with one data set a loader',
        )
    return ConfigDict({**new, 'pipeline': old.pipeline})


def set_num_classes(model: dict | list, num_classes: int) -> None:
    """Sets every ``num_classes`` in a model's config but the RPN's."""
    if isinstance(model, list | tuple):
        for part in model:
            set_num_classes(part, num_classes)
    elif isinstance(model, dict):
        for key, value in model.items():
            if key == 'num_classes':
                model[key] = num_classes
            elif key != 'rpn_head':
                set_num_classes(value, num_classes)
