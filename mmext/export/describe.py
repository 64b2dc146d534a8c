# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What an exported file says about the model that is in it."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import mmdet
import torch
from mmdet.models.dense_heads import RTMDetInsHead
from torch import nn

from mmext.evaluation.runs import describe_model
from mmext.export.metadata import Metadata
from mmext.export.preparation import Preparation
from mmext.utils.files import sha256
from mmext.version import __version__


def describe(
    model: nn.Module,
    checkpoint: str | Path,
    prepare: Preparation,
    size: tuple[int, int] | None,
    multiple: int,
) -> Metadata:
    """Returns the metadata of a file.

    Args:
        model: The detector, with its config.
        checkpoint: What its weights were loaded from.
        prepare: What is done to images before.
        size: Height and width, if the file takes no others.
        multiple: What they must be multiples of.
    """
    cfg = model.cfg.to_dict()
    text = model.cfg.pretty_text.encode()
    hashes = {'config': hashlib.sha256(text).hexdigest()}
    path = Path(checkpoint).expanduser()
    if path.is_file():  # not a URL
        hashes['checkpoint'] = sha256(path)
    about = {
        'model': describe_model(model.cfg.model),
        'normalization': cfg['model'].get('data_preprocessor'),
        'thresholds': cfg['model'].get('test_cfg'),
        'hashes': hashes,
        'versions': {
            'mmext': __version__,
            'torch': torch.__version__,
            'mmdet': mmdet.__version__,
        },
    }
    classes = tuple(model.dataset_meta['classes'])
    return Metadata(classes, prepare, size, multiple, _masks(model), about)


def _masks(model: nn.Module) -> dict[str, Any] | None:
    """Returns how masks are stored; see :mod:`mmext.export.masks`."""
    head = getattr(model, 'bbox_head', None)
    if isinstance(head, RTMDetInsHead):
        share = head.test_cfg.mask_thr_binary
        return {
            'kind': 'image',
            'threshold': math.log(share / (1 - share)),
            'stride': head.prior_generator.strides[0][0],
        }
    head = getattr(model, 'roi_head', None)
    if head is not None and head.with_mask:
        return {'kind': 'box', 'threshold': head.test_cfg.mask_thr_binary}
    return None
