# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares the pixels of a run with those that its weights have seen."""

from __future__ import annotations

import numpy as np
from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor
from torch import nn

from mmext.checkpoints.released import pretrained_configs
from mmext.errors import UserError

CLOSE = 0.5  # of 255: rounding of the usual constants


def check_normalization(cfg: Config, model: nn.Module) -> None:
    """Raises `UserError` if pre-trained weights have seen other pixels.

    That is known of backbones with a ``normalization``, the mean and std of
    RGB pixels. MMDetection reads images as BGR; ``bgr_to_rgb`` of the
    preprocessor swaps them.
    """
    backbone = getattr(model, 'backbone', None)
    taken = getattr(model, 'data_preprocessor', None)
    expected = getattr(backbone, 'normalization', None)
    if (
        expected is None
        or not pretrained_configs(backbone.init_cfg)
        or not isinstance(taken, ImgDataPreprocessor)
    ):
        return
    place = 'data_preprocessor'
    if place in cfg.model:
        place = f'model.{place}'
    wrong, options = [], []
    for key, right in zip(('mean', 'std'), expected, strict=True):
        seen = []
        if taken._enable_normalize:
            seen = getattr(taken, key).flatten().tolist()
        if len(seen) != len(right) or not np.allclose(seen, right, 0, CLOSE):
            wrong.append(f'{key}={[round(v, 3) for v in seen] or None}')
            values = ','.join(f'{v:.6g}' for v in right)
            options.append(f'{place}.{key}={values}')
    if len(expected[0]) == 3 and not taken._channel_conversion:
        wrong.append('bgr_to_rgb=False')
        options.append(f'{place}.bgr_to_rgb=True')
    if options:
        raise UserError(
            f'{place} has {", ".join(wrong)}, and the pre-trained weights of '
            f'{getattr(backbone, "name", type(backbone).__name__)} have seen '
            'other pixels: AP would be lower',
            f'--cfg-options {" ".join(options)}',
        )
