# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds a folder in COCO format, and makes a config use it.

A folder has annotations of two splits and their images::

    annotations/instances_train.json    train/*.jpg
    annotations/instances_val.json      val/*.jpg

Names may continue after ``train`` and ``val`` (``instances_train2017.json``),
the annotation files may be in the folder itself, and the images in
``images/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmext.checks.annotations import check_files
from mmext.checks.classes import check_classes
from mmext.checks.findings import Split, require
from mmext.checks.images import check_presence, image_paths
from mmext.checks.splits import check_order
from mmext.datasets.coco import read_coco
from mmext.errors import UserError
from mmext.utils.text import some

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict


@dataclass(frozen=True)
class CocoFolder:
    """A data set: split -> annotation file, image folder, number of images.

    Paths are absolute; the order of the classes is that of the labels.
    """

    classes: tuple[str, ...]
    ann_files: dict[str, str]
    img_dirs: dict[str, str]
    num_images: dict[str, int]


def use_data_folder(
    cfg: Config, data: str | Path, classes: Sequence[str] | None = None
) -> None:
    """Makes a detection config train and evaluate on a folder, in place.

    Every annotation must have a mask if the config loads or evaluates masks.
    See :func:`find_coco_folder` and :func:`use_coco_folder`.
    """
    if cfg.get('default_scope', 'mmdet') != 'mmdet':
        raise UserError(
            'only detection configs can be trained on a folder in COCO '
            f'format, and this one is for {cfg.default_scope}',
            'Set the paths and class names in the config.',
        )
    folder = find_coco_folder(data, classes, _needs_masks(cfg))
    use_coco_folder(cfg, folder)


def find_coco_folder(
    root: str | Path, classes: Sequence[str] | None = None, masks: bool = False
) -> CocoFolder:
    """Finds the files of a data set and checks the annotations.

    ``classes`` are the categories to use, in any order (None is all);
    ``masks`` requires a mask of every annotation. Raises `UserError` if the
    folder, a file in it or its content is not what training needs.
    """
    splits, contents = find_folder_splits(root, classes, masks)
    findings = list(check_order(*splits, contents))
    for split in splits:
        content = contents[split.name]
        findings += check_files(content, split)
        findings += check_presence(image_paths(content, split), split)[0]
        findings += check_classes(content, split)
    require(findings)
    return CocoFolder(
        classes=splits[0].classes,
        ann_files={s.name: str(s.ann_file) for s in splits},
        img_dirs={s.name: str(s.img_dir) for s in splits},
        num_images={n: len(c['images']) for n, c in contents.items()},
    )


def find_folder_splits(
    root: str | Path, classes: Sequence[str] | None = None, masks: bool = False
) -> tuple[list[Split], dict[str, dict[str, Any]]]:
    """Returns the splits and their annotations without checking them."""
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise UserError(
            f'data folder {root} '
            + ('is a file' if root.exists() else 'does not exist'),
            'Give the folder that holds annotations/ and the images.',
        )
    files = {name: _find_annotations(root, name) for name in ('train', 'val')}
    if files['train'] == files['val']:
        raise UserError(
            f'{files["val"]} is the only annotation file for both train and '
            'val',
            'Write two files, of images to train and of others to validate.',
        )
    contents = {name: read_coco(file) for name, file in files.items()}
    names = [c['name'] for c in contents['train']['categories']]
    if classes is None:
        classes = names
    # In the order of their labels; unknown ones are reported later.
    known = [name for name in names if name in classes]
    unknown = [name for name in classes if name not in names]
    splits = [
        Split(
            name=name,
            ann_file=file,
            img_dir=_find_img_dir(root, file, name, contents[name]),
            classes=(*known, *unknown),
            masks=masks,
            training=name == 'train',
            filter_empty=name == 'train',
            root=root,
        )
        for name, file in files.items()
    ]
    return splits, contents


def _find_annotations(root: Path, split: str) -> Path:
    for pattern in (f'instances_{split}', f'instances_{split}*', f'*{split}*'):
        for folder in (root / 'annotations', root):
            found = sorted(folder.glob(f'{pattern}.json'))
            if found:
                return min(found, key=lambda p: len(p.name))
    inside = sorted(
        str(p.relative_to(root))
        for p in [*root.glob('*'), *root.glob('annotations/*')]
    )
    raise UserError(
        f'{root} has no annotations/instances_{split}.json; it holds '
        + (some(inside, 8) or 'nothing'),
        'Give a folder in COCO format; tools/dataset_converters writes one '
        'from VOC or YOLO files.',
    )


def _find_img_dir(
    root: Path, ann_file: Path, split: str, content: dict[str, Any]
) -> Path:
    """Returns the folder that has most of the first images."""
    stem = ann_file.stem.removeprefix('instances_')
    names = dict.fromkeys([stem, split])
    places = [
        *(root / name for name in names),
        *(root / 'images' / name for name in names),
        *(root / name / 'images' for name in names),
        root / 'images',
        root,
    ]
    files = [image['file_name'] for image in content['images'][:20]]
    found = [sum((place / f).is_file() for f in files) for place in places]
    if any(found):
        return places[found.index(max(found))]
    tried = ', '.join(f'{p.relative_to(root)}/' for p in places)
    raise UserError(
        f'image {files[0]} of {ann_file} is not in {root} ({tried})',
        f'Put the images in {root / stem}/.',
    )


def use_coco_folder(cfg: Config, folder: CocoFolder) -> None:
    """Makes a detection config train and evaluate on a folder, in place.

    The data sets become mmdet's ``CocoDataset`` with the pipelines and the
    wrappers (``RepeatDataset``, ...) that they had, the evaluators read the
    folder's annotations, and every ``num_classes`` of the model becomes the
    number of its classes. Raises `UserError` if a loader has several data
    sets.
    """
    from mmengine.config import ConfigDict

    from mmext.utils.config import evaluators

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
    for stage in ('val', 'test'):
        metrics = evaluators(cfg, stage)[0]
        cfg[f'{stage}_evaluator'] = ConfigDict(
            type='CocoMetric',
            ann_file=folder.ann_files['val'],
            metric=metrics.get('metric', 'bbox'),
        )
    _set_num_classes(cfg.model, len(folder.classes))


def _replaced(old: ConfigDict, new: ConfigDict) -> ConfigDict:
    """Returns ``new`` with the pipeline and in the wrappers of ``old``."""
    from mmengine.config import ConfigDict

    if 'dataset' in old:
        return ConfigDict({**old, 'dataset': _replaced(old.dataset, new)})
    if 'pipeline' not in old:
        raise UserError(
            f'a data set of type {old.type} has no pipeline of its own',
            'Use a config with one data set in each loader.',
        )
    kept = {k: old[k] for k in ('pipeline', 'indices') if k in old}
    return ConfigDict({**new, **kept})


def _needs_masks(cfg: Config) -> bool:
    from mmext.utils.config import evaluates_masks

    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    steps = dataset.get('pipeline', ())
    return evaluates_masks(cfg, 'val') or any(
        step.get('with_mask') for step in steps
    )


def _set_num_classes(model: Any, num_classes: int) -> None:
    """Sets every ``num_classes`` of a model's config except the RPN's."""
    if isinstance(model, list | tuple):
        for part in model:
            _set_num_classes(part, num_classes)
    elif isinstance(model, Mapping):
        for key, value in model.items():
            if key == 'num_classes':
                model[key] = num_classes
            elif key != 'rpn_head':
                _set_num_classes(value, num_classes)
