# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detections on images that belong to no data set: pictures and COCO JSON.

``OUT/pictures`` holds the images with boxes and masks, under the names and
folders they had; ``OUT/bbox.json`` (and ``segm.json``) the detections as COCO
results; ``OUT/images.json`` says which image and category each id means.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.apis import inference_detector, init_detector
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress
from torch import nn

from mmext.checkpoints.match import require_match
from mmext.checkpoints.read import load
from mmext.engine.memory_format import set_memory_format
from mmext.errors import UserError, did_you_mean
from mmext.models.build import build_model

SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Image files, and those in folders and the folders inside them.

    Raises:
        UserError: A path that is not there, is no image, or holds none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [
                p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES
            ]
            if not inside:
                have = sorted({p.suffix for p in path.rglob('*') if p.suffix})
                raise UserError(
                    f'folder {path} holds no image; it has '
                    + (', '.join(have[:6]) or 'nothing'),
                    f'Images end in {", ".join(sorted(SUFFIXES))}.',
                )
            found += sorted(inside)
        elif not path.exists():
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            near = did_you_mean(path.name, [p.name for p in beside])
            raise UserError(
                f'image {path} does not exist',
                near or f'Look into {path.absolute().parent}.',
            )
        elif path.suffix.lower() not in SUFFIXES:
            raise UserError(
                f'{path} is not an image by its name',
                f'Images end in {", ".join(sorted(SUFFIXES))}.',
            )
        else:
            found.append(path)
    return list(dict.fromkeys(p.absolute() for p in found))


def load_detector(cfg: Config, checkpoint: str, device: str) -> nn.Module:
    """A detector with every one of its weights from a checkpoint.

    Args:
        cfg: A detection config.
        checkpoint: File or URL; see :mod:`mmext.checkpoints.read`.
        device: As torch names it.

    Raises:
        UserError: No such device, not a detector, or a checkpoint that does
            not fit.
    """
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f'device {device!r} is not here: {str(error).splitlines()[0]}',
            f'{torch.cuda.device_count()} GPUs are visible; --device cpu '
            'works everywhere.',
        ) from error
    scope = cfg.get('default_scope', 'mmdet')
    if scope != 'mmdet' or 'test_dataloader' not in cfg:
        raise UserError(
            f'config {cfg.filename} is not a detector: its default_scope is '
            f'{scope!r}'
            + ('' if 'test_dataloader' in cfg else ', no test_dataloader'),
            'Name the config that the detector was trained with.',
        )
    init_default_scope(scope)
    if 'init_cfg' in cfg.model.get('backbone', {}):
        cfg.model.backbone.init_cfg = None  # the checkpoint has them all
    require_match(build_model(cfg.model), load(checkpoint), checkpoint)
    model = init_detector(cfg, checkpoint, device=device)
    set_memory_format(model, device, cfg.get('memory_format', 'auto'))
    _name_classes(model)
    return model


def _name_classes(model: nn.Module) -> None:
    """As many names as the heads tell apart, whatever the checkpoint has."""
    dataset = model.cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    told = (dataset.get('metainfo') or {}).get('classes')
    names = list(told or model.dataset_meta['classes'])
    count = max(
        (
            m.num_classes
            for m in model.modules()
            if isinstance(getattr(m, 'num_classes', None), int)
        ),
        default=len(names),
    )
    names += [f'class {i}' for i in range(len(names), count)]
    model.dataset_meta['classes'] = tuple(names[:count])
    if len(model.dataset_meta['palette']) < count:
        model.dataset_meta['palette'] = 'random'


class Ids:
    """What image and category ids in the results mean.

    Args:
        images: The files.
        classes: Names in the order of the labels.
        ann_file: A COCO file whose ids to use. Default: count from 1.

    Raises:
        UserError: The file is not COCO, or lacks an image or a class.
    """

    def __init__(
        self,
        images: Sequence[Path],
        classes: Sequence[str],
        ann_file: str | Path | None = None,
    ) -> None:
        self.images = {image: i for i, image in enumerate(images, 1)}
        self.categories = dict(enumerate(range(1, len(classes) + 1)))
        self.classes = classes
        if ann_file is None:
            return
        try:
            content = json.loads(Path(ann_file).read_text(encoding='utf-8'))
            by_name = {Path(i['file_name']).name: i for i in content['images']}
            by_class = {c['name']: c['id'] for c in content['categories']}
            self.images = {p: by_name[p.name]['id'] for p in images}
            self.categories = {
                label: by_class[name] for label, name in enumerate(classes)
            }
        except OSError as error:
            raise UserError(f'--ann {ann_file}: {error}') from error
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'--ann {ann_file} does not name all images and classes: '
                f'{type(error).__name__} {error}',
                'Give the COCO annotation file of these images, or leave '
                '--ann out: ids then count from 1.',
            ) from error

    def described(
        self, sizes: dict[Path, tuple[int, int]], root: Path
    ) -> dict:
        """A COCO file without annotations."""
        return {
            'images': [
                {
                    'id': self.images[path],
                    'file_name': path.relative_to(root).as_posix(),
                    'height': height,
                    'width': width,
                }
                for path, (height, width) in sizes.items()
            ],
            'categories': [
                {'id': self.categories[label], 'name': name}
                for label, name in enumerate(self.classes)
            ],
            'annotations': [],
        }


def coco_results(
    sample: DetDataSample, image_id: int, ids: Ids
) -> Iterator[tuple[dict, dict | None]]:
    """Each detection as COCO has it: a box, and a mask where there is one."""
    found = sample.pred_instances.cpu().numpy()
    masks: Sequence[Any] = [None] * len(found)
    if 'masks' in found:
        masks = encode_mask_results(list(found.masks))
    for box, score, label, mask in zip(
        found.bboxes.tolist(),
        found.scores.tolist(),
        found.labels.tolist(),
        masks,
        strict=True,
    ):
        x1, y1, x2, y2 = box
        entry = {
            'image_id': image_id,
            'category_id': ids.categories[label],
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'score': score,
        }
        if mask is None:
            yield entry, None
        else:
            counts = mask['counts'].decode()
            segmentation = {'size': list(mask['size']), 'counts': counts}
            yield entry, {**entry, 'segmentation': segmentation}


def detect(
    model: nn.Module,
    images: Sequence[Path],
    out: str | Path,
    score_thr: float = 0.3,
    ann_file: str | Path | None = None,
) -> dict[str, list[dict]]:
    """Detects, draws and writes, with progress and time left.

    Args:
        model: Of :func:`load_detector`.
        images: Of :func:`find_images`.
        out: Folder of the results; made if need be.
        score_thr: Least score of a detection that is drawn. The JSON has all.
            Default: 0.3.
        ann_file: A COCO file whose ids to use. Default: count from 1.

    Returns:
        ``bbox`` and, of a mask detector, ``segm``: COCO results.

    Raises:
        UserError: Before anything is done, for what :class:`Ids` refuses or a
            folder that cannot be written; in the end, for images that could
            not be read. The others' results are there then.
    """
    ids = Ids(images, model.dataset_meta['classes'], ann_file)
    out = Path(out)
    try:
        (out / 'pictures').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'results cannot go to {out}: {error}', 'Name another --out.'
        ) from error
    root = Path(os.path.commonpath([p.parent for p in images]))
    draw = DetLocalVisualizer()
    draw.dataset_meta = model.dataset_meta
    pipeline = Compose(get_test_pipeline_cfg(model.cfg.copy()))
    results: dict[str, list[dict]] = {'bbox': [], 'segm': []}
    sizes: dict[Path, tuple[int, int]] = {}
    unreadable: list[Path] = []
    for path in track_iter_progress(images, file=sys.stdout):
        image = (
            cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            if path.stat().st_size
            else None
        )
        if image is None:
            unreadable.append(path)
            continue
        sizes[path] = image.shape[:2]
        sample = inference_detector(model, str(path), pipeline)
        for box, mask in coco_results(sample, ids.images[path], ids):
            results['bbox'].append(box)
            if mask is not None:
                results['segm'].append(mask)
        picture = out / 'pictures' / path.relative_to(root)
        draw.add_datasample(
            path.name,
            image[..., ::-1],
            sample,
            draw_gt=False,
            pred_score_thr=score_thr,
            out_file=str(picture),
        )
    print()
    results = {k: v for k, v in results.items() if v or k == 'bbox'}
    for kind, entries in results.items():
        _write(out / f'{kind}.json', entries)
    _write(out / 'images.json', ids.described(sizes, root))
    if unreadable:
        raise UserError(
            f'{len(unreadable)} of {len(images)} images could not be read; '
            f'the first: {unreadable[0]} '
            f'({unreadable[0].stat().st_size} bytes)',
            f'Get them again. The results of the others are in {out}.',
        )
    return results


def _write(path: Path, content: object) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f'{path.name}.tmp')
    temporary.write_text(json.dumps(content), encoding='utf-8')
    os.replace(temporary, path)
