# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detects objects in images and writes pictures and COCO result files.

``OUT/pictures`` has the images with boxes and masks, with the names and
folders of the input. ``OUT/bbox.json`` (and ``segm.json``) are COCO results.
``OUT/images.json`` says what the ids of images and categories mean.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from rich.progress import track
from torch import nn

from mmext.checkpoints.match import require_match
from mmext.checkpoints.read import load, require_sha256
from mmext.checkpoints.untrusted import trusting
from mmext.engine.memory_format import set_memory_format
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config
from mmext.utils.devices import require_device
from mmext.utils.files import write_json
from mmext.utils.images import find_images
from mmext.utils.text import count


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
    trust_checkpoint: bool = False,
) -> dict[str, list[dict]]:
    """Detects objects in images and writes pictures and COCO result files.

    Args:
        config: The config file of a detector.
        checkpoint: Its checkpoint, a file or URL.
        images: Image files, or folders that are searched with their
            sub-folders.
        out: Folder of the results; it is created. Default: ``detections``.
        score_thr: Lowest score of a detection that is drawn, from 0 to 1. The
            result files have all detections. Default: 0.3.
        device: A device of PyTorch. Default: the first GPU, or the CPU.
        ann_file: A COCO file whose image and category ids are used. Default:
            ids are counted from 1.
        sha256: The first 8 or more digits of the checkpoint's SHA-256.
            Default: not checked.
        cfg_options: Changes of the config: dotted keys with their values, or
            ``KEY=VALUE`` strings. Default: none.
        trust_checkpoint: Whether to unpickle anything that the checkpoint
            holds, which can run any code. Default: False.

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
    cfg = load_config(config, cfg_options)
    if sha256 is not None:
        require_sha256(checkpoint, sha256)
    if device is None:
        device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    with trusting(trust_checkpoint):
        detector = load_detector(cfg, checkpoint, device)
    print(f'{count(len(files), "image")} on {device}', flush=True)
    return _detect(detector, files, Path(out), score_thr, ann_file)


def load_detector(
    cfg: Config, checkpoint: str | Path, device: str
) -> Detector:
    """Builds a detector and loads all its weights from a checkpoint.

    Args:
        cfg: The config of a detector.
        checkpoint: A file or URL; see :mod:`mmext.checkpoints.read`.
        device: A device of PyTorch.

    Raises:
        UserError: The device does not exist, the config is not a detector, or
            the checkpoint does not fit.
    """
    require_device(device)
    scope = cfg.get('default_scope', 'mmdet')
    if scope != 'mmdet' or 'test_dataloader' not in cfg:
        raise UserError(
            f'config {cfg.filename} is not a detector: its default_scope is '
            f'{scope!r}'
            + ('' if 'test_dataloader' in cfg else ', no test_dataloader'),
            'Name the config that the detector was trained with.',
        )
    cfg = copy.deepcopy(cfg)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset or 'datasets' in dataset:
        inner = dataset.get('dataset') or dataset['datasets'][0]
        dataset = cfg.test_dataloader.dataset = inner
    return Detector(cfg, str(checkpoint), device, show_progress=False)


class Detector(DetInferencer):
    """mmdet's inferencer with weights that all fit and a name for each label.

    Example:
        >>> detector = load_detector(cfg, 'epoch_12.pth', 'cpu')
        >>> image = np.zeros((480, 640, 3), np.uint8)  # in BGR order
        >>> detector(image)['predictions'][0].keys()
        dict_keys(['labels', 'scores', 'bboxes'])
    """

    def _init_model(
        self, cfg: Config, weights: str, device: str = 'cpu'
    ) -> nn.Module:
        """Builds the model once and reads the checkpoint once."""
        model = build_model(cfg.model)
        content = load(weights)
        require_match(model, content, weights)
        model.cfg = cfg
        self._load_weights_to_model(model, content, cfg)
        model.to(device)
        set_memory_format(model, device, cfg.get('memory_format', 'auto'))
        _name_classes(model)
        return model.eval()

    def _init_visualizer(self, cfg: Config) -> DetLocalVisualizer:
        """Draws into files only, whatever backends the config has."""
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer


def _name_classes(model: nn.Module) -> None:
    """Gives every label of the heads a name and a colour."""
    meta = model.dataset_meta
    metainfo = model.cfg.test_dataloader.dataset.get('metainfo') or {}
    names = list(metainfo.get('classes') or meta['classes'])
    labels = max(
        (
            m.num_classes
            for m in model.modules()
            if isinstance(getattr(m, 'num_classes', None), int)
        ),
        default=len(names),
    )
    names += [f'class {i}' for i in range(len(names), labels)]
    meta['classes'] = tuple(names[:labels])
    if len(meta['palette']) < labels:
        meta['palette'] = 'random'


class Ids:
    """The ids of images and categories in the results.

    Args:
        images: The image files.
        classes: Class names in the order of the labels.
        ann_file: A COCO file whose ids are used. Default: ids are counted
            from 1.

    Raises:
        UserError: The file is not a COCO file, or an image or a class is
            missing from it.
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
                'Give the COCO annotation file of these images, or omit --ann '
                'to count the ids from 1.',
            ) from error

    def as_coco(self, sizes: dict[Path, tuple[int, int]], root: Path) -> dict:
        """Returns the content of a COCO file without annotations.

        Args:
            sizes: Image -> (height, width) in pixels.
            root: The folder that file names are relative to.
        """
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
    """Yields each detection as a COCO box and, if there is one, a mask."""
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


def _detect(
    detector: Detector,
    images: Sequence[Path],
    out: Path,
    score_thr: float,
    ann_file: str | Path | None,
) -> dict[str, list[dict]]:
    """Detects, draws and writes, and shows the progress with the time left."""
    ids = Ids(images, detector.model.dataset_meta['classes'], ann_file)
    try:
        (out / 'pictures').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'results cannot be written to {out}: {error}',
            'Name another folder with --out.',
        ) from error
    root = Path(os.path.commonpath([p.parent for p in images]))
    boxes: list[dict] = []
    masks: list[dict] = []
    sizes: dict[Path, tuple[int, int]] = {}
    unreadable: list[Path] = []
    for path in track(images, 'Detecting'):
        image = _read(path)
        if image is None:
            unreadable.append(path)
            continue
        sizes[path] = image.shape[:2]
        (sample,) = detector(image, return_datasamples=True)['predictions']
        for box, mask in coco_results(sample, ids.images[path], ids):
            boxes.append(box)
            if mask is not None:
                masks.append(mask)
        detector.visualizer.add_datasample(
            path.name,
            image[..., ::-1],
            sample,
            draw_gt=False,
            pred_score_thr=score_thr,
            out_file=str(out / 'pictures' / path.relative_to(root)),
        )
    results = {'bbox': boxes}
    if masks:
        results['segm'] = masks
    for kind, entries in results.items():
        write_json(out / f'{kind}.json', entries)
    write_json(out / 'images.json', ids.as_coco(sizes, root))
    if unreadable:
        raise UserError(
            f'{len(unreadable)} of {len(images)} images could not be read; '
            f'the first: {unreadable[0]} '
            f'({unreadable[0].stat().st_size} bytes)',
            'Replace these files. The results of the other images are in '
            f'{out}.',
        )
    return results


def _read(path: Path) -> np.ndarray | None:
    """Returns an image in BGR order, or None if it cannot be read."""
    content = np.fromfile(path, np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
