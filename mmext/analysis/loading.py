# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A model and its input images from a config, for the analysis tools."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmext.checkpoints.match import require_match
from mmext.checkpoints.read import load
from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config

IMAGE_TYPES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def load_model(
    config: str | Path, checkpoint: str | Path, device: str = 'cpu'
) -> tuple[Config, nn.Module]:
    """Builds a config's model and fills it, in evaluation mode.

    Args:
        config: An mmdet or mmpretrain config.
        checkpoint: Its weights; ``'none'`` keeps the initial ones.
        device: Where to put the model. Default: 'cpu'.

    Raises:
        UserError: A wrong config, or a checkpoint that does not fit it.
    """
    cfg = load_config(config)
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    if str(checkpoint) != 'none':  # or building would fetch other weights
        _drop_pretrained(cfg.model)
    model = build_model(cfg.model)
    if str(checkpoint) == 'none':
        _init_quietly(model)
    else:
        weights = load(checkpoint)
        require_match(model, weights, str(checkpoint))
        model.load_state_dict(weights.get('state_dict', weights), False)
    if not hasattr(model, 'backbone'):
        raise UserError(
            f'{type(model).__name__} of {config} has no `backbone` to look '
            'into.'
        )
    return cfg, model.to(device).eval()


def image_inputs(
    cfg: Config, model: nn.Module, files: Sequence[Path]
) -> Iterator[Tensor]:
    """Each image as the backbone sees it, (1, C, H, W), one at a time.

    Runs the config's test pipeline and the model's own preprocessor, so that
    sizes may differ from one image to the next.

    Raises:
        UserError: A file that cannot be read as an image.
    """
    data = cfg.get('test_dataloader') or cfg.val_dataloader
    dataset = data.dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    pipeline = Compose(
        [t for t in dataset.pipeline if 'LoadAnnotations' not in str(t.type)]
    )
    for file in files:
        sample = pipeline({'img_path': str(file), 'img_id': 0, 'gt_label': []})
        if sample is None:
            raise UserError(f'{file} cannot be read as an image.')
        batch = model.data_preprocessor(pseudo_collate([sample]), False)
        yield batch['inputs']


def find_images(places: Sequence[str], limit: int | None = None) -> list[Path]:
    """Image files named one by one or by their folder, in order.

    Args:
        places: Files and folders.
        limit: Take that many, evenly spaced. Default: all.

    Raises:
        UserError: A place that does not exist or holds no image.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            here = sorted(
                p for p in place.iterdir() if p.suffix.lower() in IMAGE_TYPES
            )
            if not here:
                raise UserError(
                    f'{place} holds no image.',
                    f'Endings that are read: {", ".join(IMAGE_TYPES)}.',
                )
            files += here
        elif place.is_file():
            files.append(place)
        else:
            raise UserError(
                f'{place} does not exist.',
                'Name image files or folders after --images.',
            )
    if limit is not None and limit < len(files):
        files = [files[i * len(files) // limit] for i in range(limit)]
    return files


def _init_quietly(model: nn.Module) -> None:
    """Without MMEngine's line for each parameter."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        model.init_weights()
    finally:
        logging.disable(before)


def _drop_pretrained(node: object) -> None:
    """Removes every ``init_cfg`` that would load a checkpoint."""
    if isinstance(node, dict):
        init = node.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            node['init_cfg'] = None
        for value in node.values():
            _drop_pretrained(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _drop_pretrained(value)


def device_of(name: str) -> str:
    """The device asked for.

    Raises:
        UserError: A GPU, where PyTorch sees none.
    """
    if name.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(
            f'--device {name}: PyTorch sees no GPU here.', 'Use --device cpu.'
        )
    return name
