# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Models are analysed on the inputs that they are trained and tested on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmext.analysis.loading import image_inputs, load_model

CONFIG = ROOT / 'configs' / 'evidence' / 'resnet20_cifar10.py'


def test_classifiers_get_the_images_that_the_runner_gives_them(
    tmp_path: Path,
) -> None:
    """MMPretrain's configs have the preprocessor beside the model."""
    pytest.importorskip('mmpretrain')
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    file = tmp_path / 'cat' / 'image.png'
    file.parent.mkdir()
    cv2.imwrite(str(file), image)
    cfg, model = load_model(CONFIG, 'init')
    [found] = image_inputs(cfg, model, [file])
    cfg.test_dataloader.dataset.data_prefix = str(tmp_path)
    cfg.work_dir = str(tmp_path / 'work')
    runner = Runner.from_cfg(cfg)
    sample = DATASETS.build(cfg.test_dataloader.dataset)[0]
    theirs = runner.model.data_preprocessor(pseudo_collate([sample]))
    torch.testing.assert_close(found, theirs['inputs'])
    rgb = torch.from_numpy(image[None, :, :, ::-1].copy()).permute(0, 3, 1, 2)
    pre = cfg.data_preprocessor
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (pre.mean, pre.std))
    torch.testing.assert_close(found, (rgb - mean) / std)
