# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Loads models and images for the analysis tools."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor, nn

from mmext.checkpoints.load import load
from mmext.checkpoints.match import require_match
from mmext.errors import UserError
from mmext.models.build import build_from_config
from mmext.utils.config import load_config
from mmext.utils.modules import require_device
from mmext.utils.random_state import random_state_kept, seed_everything

#: Names for the weights that a training starts from.
INITIAL = ('init', 'none')


def load_model(
    config: str | Path,
    checkpoint: str | Path,
    device: str = 'cpu',
    seed: int = 0,
) -> tuple[Config, nn.Module]:
    """Builds the model of a config in evaluation mode, with its weights.

    The checkpoint ``'init'`` (or ``'none'``) keeps the weights that a training
    starts from: the pre-trained ones that the config names, and random ones
    of the seed for the other layers.
    """
    require_device(device)
    cfg = load_config(config)
    initial = str(checkpoint) in INITIAL
    with random_state_kept():
        seed_everything(seed)
        model = build_from_config(cfg)
        if initial:
            with quiet():
                model.init_weights()
    if not initial:
        weights = load(checkpoint)
        require_match(model, weights, str(checkpoint))
        model.load_state_dict(weights.get('state_dict', weights), False)
    if not hasattr(model, 'backbone'):
        raise UserError(
            f'the {type(model).__name__} of {config} has no `backbone`',
            'The analysis tools measure the backbone of a model.',
        )
    return cfg, model.to(device).eval()


def image_inputs(
    cfg: Config, model: nn.Module, files: Sequence[Path]
) -> Iterator[Tensor]:
    """Yields the backbone's input for each image, (1, C, H, W).

    Runs the config's test pipeline and the model's preprocessor, so sizes can
    differ between images.
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
            raise UserError(f'{file} cannot be read as an image')
        batch = model.data_preprocessor(pseudo_collate([sample]), False)
        yield batch['inputs']


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the lines that MMEngine logs for each initialised parameter."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
