# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects objects in images and writes pictures and COCO result files."""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.datasets.transforms import InferencerLoader
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from rich.progress import track
from torch import nn

from mmext.checkpoints.load import load
from mmext.checkpoints.match import require_match
from mmext.checkpoints.read import require_sha256
from mmext.checkpoints.trust import trusting
from mmext.datasets.coco import read_coco
from mmext.engine.memory_format import set_memory_format
from mmext.errors import UserError, printable
from mmext.models.build import build_from_config
from mmext.utils.config import load_config
from mmext.utils.files import write_json
from mmext.utils.images import (
    as_picture,
    find_images,
    is_bomb,
    picture_names,
)
from mmext.utils.modules import require_device
from mmext.utils.text import count, some

_LONGEST = 2**16  # pixels; matplotlib draws no longer pictures


def predict(
    config: str | Path,
    checkpoint: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path = 'detections',
    score_thr: float = 0.3,
    device: str | None = None,
    ann_file: str | Path | None = None,
    sha256: str | None = None,
    cfg_options: Mapping[str, Any] | Sequence[str] | None = None,
    trust_checkpoint: str | Sequence[str] = (),
) -> dict[str, list[dict]]:
    """Detects objects in images and writes pictures and COCO result files.

    ``OUT/pictures`` has the images with boxes and masks. Those of a folder
    keep their paths in it, after its name if several inputs are given.
    ``OUT/bbox.json`` (and ``segm.json``) are COCO results. ``OUT/images.json``
    lists the ids of images and categories. Images are read as the config's
    test pipeline does, which may ignore their EXIF rotation.

    Args:
        config: The config file of a detector.
        checkpoint: Its checkpoint, a file or URL.
        images: Image files, or folders that are searched with their
            sub-folders.
        out: Folder of the results; it is created. Default: ``detections``.
        score_thr: Lowest score of a detection that is drawn, from 0 to 1. The
            result files have all detections. Default: 0.3.
        device: A device of PyTorch. Default: the first GPU, or the CPU.
        ann_file: A COCO file whose image and category ids are used. The path
            of each image must end with the ``file_name`` of an entry.
            Default: ids are counted from 1.
        sha256: The first 8 or more digits of the checkpoint's SHA-256.
            Default: not checked.
        cfg_options: Changes of the config: dotted keys with their values, or
            ``KEY=VALUE`` strings. Default: none.
        trust_checkpoint: SHA-256 of checkpoints that may run any code.
            Default: none.

    Returns:
        The COCO results ``bbox`` and, of a mask detector, ``segm``.

    Raises:
        UserError: The prediction cannot work, and nothing was written. If
            images cannot be read, it is raised at the end, and the results of
            the other images are written.

    Example:
        >>> found = mmext.predict('my_config.py', 'epoch_12.pth', 'photos')
        >>> found['bbox'][0]
        {'image_id': 1, 'category_id': 1, 'bbox': [...], 'score': 0.98}
    """
    if isinstance(images, str | Path):
        images = [images]
    files = find_images(images)
    names = picture_names(files, images)
    cfg = load_config(config, cfg_options)
    if sha256 is not None:
        require_sha256(checkpoint, sha256)
    if device is None:
        device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    with trusting(trust_checkpoint):
        detector = load_detector(cfg, checkpoint, device)
    print(f'{count(len(files), "image")} on {device}', flush=True)
    named = dict(zip(files, names, strict=True))
    return _detect(detector, named, Path(out), score_thr, ann_file)


def load_detector(
    cfg: Config, checkpoint: str | Path, device: str
) -> Detector:
    """Builds a detector and loads all its weights from a checkpoint.

    The result is called with images in BGR order; docs/python.md has an
    example. Raises `UserError` if the device does not exist, the config is not
    a detector, or the checkpoint does not fit.
    """
    require_device(device)
    require_detector(cfg)
    cfg = copy.deepcopy(cfg)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset or 'datasets' in dataset:
        inner = dataset.get('dataset') or dataset['datasets'][0]
        dataset = cfg.test_dataloader.dataset = inner
    return Detector(cfg, str(checkpoint), device, show_progress=False)


def require_detector(cfg: Config) -> None:
    """Raises `UserError` if the config is not that of a detector."""
    scope = cfg.get('default_scope', 'mmdet')
    if scope != 'mmdet' or 'test_dataloader' not in cfg:
        missing = '' if 'test_dataloader' in cfg else ', no test_dataloader'
        raise UserError(
            f'config {cfg.filename} is not a detector: its default_scope is '
            f'{scope!r}{missing}',
            'Name the config that the detector was trained with.',
        )


class Detector(DetInferencer):
    """mmdet's inferencer whose weights all fit and whose labels have names."""

    def _init_model(
        self, cfg: Config, weights: str, device: str = 'cpu'
    ) -> nn.Module:
        model = build_from_config(cfg)
        content = load(weights)
        require_match(model, content, weights)
        model.cfg = cfg
        self._load_weights_to_model(model, content, cfg)
        model.to(device)
        set_memory_format(model, device, cfg.get('memory_format', 'auto'))
        _name_classes(model)
        return model.eval()

    def _init_pipeline(self, cfg: Config) -> Compose:
        pipeline = super()._init_pipeline(cfg)
        loaders = [
            step.from_file
            for step in pipeline.transforms
            if isinstance(step, InferencerLoader)
        ]
        self._loader = loaders[0]
        self._loader.to_float32 = False  # the pipeline converts it
        self._loader.backend_args = None  # the images are local files
        return pipeline

    def read(self, path: Path) -> np.ndarray | None:
        """Reads an image as the test pipeline does; None if it fails.

        An image of more pixels than Pillow accepts is not read.
        """
        if not path.is_file() or is_bomb(path):
            return None
        try:
            return self._loader({'img_path': str(path)})['img']
        except (AssertionError, OSError, ValueError, cv2.error):
            return None

    def _init_collate(self, cfg: Config) -> Callable:
        # MMEngine's method returns the same, but warns that mmdet has no
        # registry of functions.
        return pseudo_collate

    def _init_visualizer(self, cfg: Config) -> DetLocalVisualizer:
        visualizer = DetLocalVisualizer()  # without the config's backends
        meta = self.model.dataset_meta
        # matplotlib would read what is between two $ as a formula.
        names = [name.replace('$', r'\$') for name in meta['classes']]
        visualizer.dataset_meta = {**meta, 'classes': names}
        return visualizer


def _name_classes(model: nn.Module) -> None:
    """Gives every label of the heads a name and a colour."""
    meta = model.dataset_meta
    metainfo = model.cfg.test_dataloader.dataset.get('metainfo') or {}
    names = list(metainfo.get('classes') or meta['classes'])
    counts = [getattr(m, 'num_classes', None) for m in model.modules()]
    counts = [n for n in counts if isinstance(n, int)]
    labels = max(counts, default=len(names))
    names += [f'class {i}' for i in range(len(names), labels)]
    meta['classes'] = tuple(map(printable, names[:labels]))
    if len(meta['palette']) < labels:
        meta['palette'] = 'random'


def _ids(
    images: Sequence[Path], classes: Sequence[str], ann_file: str | Path | None
) -> tuple[list[int], list[int]]:
    """Returns the ids of images and classes: those of the file, or from 1."""
    if ann_file is None:
        return [*range(1, len(images) + 1)], [*range(1, len(classes) + 1)]
    content = read_coco(ann_file)
    by_name = {_parts(i['file_name']): i['id'] for i in content['images']}
    by_class = {c['name']: c['id'] for c in content['categories']}
    names = [_listed(path, by_name) for path in images]
    unknown = [str(p) for p, n in zip(images, names, strict=True) if n is None]
    unknown += [name for name in classes if name not in by_class]
    if unknown:
        listed = ['/'.join(parts) for parts in by_name]
        raise UserError(
            f'--ann {ann_file} does not name all images and classes. It does '
            f'not have {some(map(repr, unknown))}',
            f'Its images are {some(listed, 3)}, its classes '
            f'{some(by_class)}. Give images in the same folders, or omit '
            '--ann to count the ids from 1.',
        )
    found: dict[tuple[str, ...], Path] = {}
    for path, name in zip(images, names, strict=True):
        other = found.setdefault(name, path)
        if other != path:
            raise UserError(
                f'--ann {ann_file}: {other} and {path} would both be its '
                f'image {"/".join(name)}',
                'Give the images of one folder.',
            )
    return [by_name[n] for n in names], [by_class[n] for n in classes]


def _parts(name: str) -> tuple[str, ...]:
    """Returns the folders and the name of a file, comparable as text."""
    name = unicodedata.normalize('NFC', name).replace('\\', '/')
    return tuple(part for part in name.split('/') if part not in ('', '.'))


def _listed(
    path: Path, known: Mapping[tuple[str, ...], int]
) -> tuple[str, ...] | None:
    """Returns the longest known name that a path ends with."""
    parts = _parts(path.as_posix())
    ends = (parts[i:] for i in range(len(parts)))
    return next((end for end in ends if end in known), None)


def _coco_results(
    sample: DetDataSample, image_id: int, category_ids: Sequence[int]
) -> tuple[list[dict], list[dict]]:
    """Returns the boxes and the masks of an image as COCO results."""
    found = sample.pred_instances.cpu().numpy()
    columns = (found.bboxes, found.scores, found.labels)
    boxes = [
        {
            'image_id': image_id,
            'category_id': category_ids[label],
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'score': score,
        }
        for (x1, y1, x2, y2), score, label in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]
    if 'masks' not in found:
        return boxes, []
    masks = encode_mask_results(list(found.masks))
    for mask in masks:
        mask['counts'] = mask['counts'].decode()
    return boxes, [
        {**box, 'segmentation': mask}
        for box, mask in zip(boxes, masks, strict=True)
    ]


def _detect(
    detector: Detector,
    images: Mapping[Path, str],
    out: Path,
    score_thr: float,
    ann_file: str | Path | None,
) -> dict[str, list[dict]]:
    classes = detector.model.dataset_meta['classes']
    image_ids, category_ids = _ids([*images], classes, ann_file)
    try:
        (out / 'pictures').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'results cannot be written to {out}: {error}',
            'Name another folder with --out.',
        ) from error
    boxes: list[dict] = []
    masks: list[dict] = []
    read: list[dict] = []
    failed: dict[Path, str] = {}
    numbered = list(zip(images, image_ids, strict=True))
    for path, image_id in track(numbered, 'Detecting'):
        image = detector.read(path)
        if image is None:
            failed[path] = f'{path.stat().st_size} bytes'
            continue
        name = images[path]
        height, width = image.shape[:2]
        size = {'height': height, 'width': width}
        try:
            if max(width, height) >= _LONGEST:
                raise ValueError
            (sample,) = detector(image, return_datasamples=True)['predictions']
            detector.visualizer.add_datasample(
                path.name,
                as_picture(image)[..., ::-1],
                sample,
                draw_gt=False,
                pred_score_thr=score_thr,
                out_file=str(out / 'pictures' / name),
            )
        except (MemoryError, RuntimeError, ValueError, cv2.error) as error:
            if isinstance(error, RuntimeError) and 'memory' not in str(error):
                raise
            failed[path] = f'{width} x {height} pixels'
            continue
        read.append({'id': image_id, 'file_name': name, **size})
        found = _coco_results(sample, image_id, category_ids)
        boxes += found[0]
        masks += found[1]
    results = {'bbox': boxes}
    if masks:
        results['segm'] = masks
    for kind, entries in results.items():
        write_json(out / f'{kind}.json', entries)
    categories = [
        {'id': i, 'name': name}
        for i, name in zip(category_ids, classes, strict=True)
    ]
    coco = {'images': read, 'categories': categories, 'annotations': []}
    write_json(out / 'images.json', coco)
    if failed:
        first = next(iter(failed.values()))
        raise UserError(
            f'{len(failed)} of {len(images)} images could not be read: '
            f'{some(failed)} ({first})',
            f'Replace them. The results of the other images are in {out}.',
        )
    return results
