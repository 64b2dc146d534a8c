# Licensed under the Apache License, Version 2.0. See LICENSE.
"""JPEGs that are decoded at a reduced size."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import Resize
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from PIL import Image
from tiny_run import make_coco
from trained import train

from mmext.datasets.loading.reduced import (
    DecodeAndResize,
    LoadEncodedImage,
    use_reduced_decoding,
)
from mmext.errors import UserError


def texture(height: int, width: int) -> np.ndarray:
    """Noise that is smooth over a few pixels, as photographs are."""
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return (128 + 60 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def jpeg(path: Path, height: int, width: int, **options: Any) -> Path:
    mode = options.pop('mode', 'RGB')
    image = Image.fromarray(texture(height, width)).convert(mode)
    image.save(path, 'JPEG', quality=90, **options)
    return path


def load(path: Path, reduced: bool, **resize: Any) -> dict[str, Any]:
    boxes = np.array([[1, 2, 30, 20], [0, 0, 5, 7]], np.float32)
    loading = LoadEncodedImage if reduced else LoadImageFromFile
    resizing = DecodeAndResize if reduced else Resize
    results = loading()({'img_path': str(path), 'gt_bboxes': boxes.copy()})
    return resizing(**resize)(results)


def compare(path: Path, **resize: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of both; asserts that everything else is equal."""
    ours, theirs = (load(path, reduced, **resize) for reduced in (True, False))
    pixels = ours.pop('img'), theirs.pop('img')
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value, err_msg=key)
    assert pixels[0].shape == pixels[1].shape
    assert pixels[0].dtype == pixels[1].dtype
    return pixels


@pytest.mark.parametrize(
    'scale, keep_ratio',
    [
        ((640, 480), True),
        ((101, 77), True),
        ((76, 101), True),
        ((101, 60), False),
        ((90, 120), False),
    ],
)
def test_below_a_half_every_pixel_is_equal(
    tmp_path: Path, scale: tuple[int, int], keep_ratio: bool
) -> None:
    path = jpeg(tmp_path / 'a.jpg', 151, 201)
    ours, theirs = compare(path, scale=scale, keep_ratio=keep_ratio)
    assert (ours == theirs).all()


@pytest.mark.parametrize('factor', [3, 4, 9])
def test_reduced_images_are_nearer_to_the_mean_of_the_pixels(
    tmp_path: Path, factor: int
) -> None:
    path = jpeg(tmp_path / 'a.jpg', 60 * factor, 80 * factor)
    ours, theirs = compare(path, scale=(80, 60), keep_ratio=True)
    full = cv2.imread(str(path))
    mean = cv2.resize(full, (80, 60), interpolation=cv2.INTER_AREA)
    error, plain = (
        np.abs(image.astype(float) - mean).mean() for image in (ours, theirs)
    )
    assert error < 0.9 * plain


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_turns_the_image(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = jpeg(tmp_path / 'a.jpg', 80, 120, exif=exif)
    ours, theirs = compare(path, scale=(60, 40), keep_ratio=True)
    assert ours.shape == ((40, 60, 3) if orientation < 5 else (60, 40, 3))
    assert np.abs(ours.astype(float) - theirs).mean() < 8


@pytest.mark.parametrize('mode', ['L', 'CMYK'])
@pytest.mark.parametrize('scale', [(50, 50), (20, 20)])
def test_grey_and_cmyk(
    tmp_path: Path, mode: str, scale: tuple[int, int]
) -> None:
    path = jpeg(tmp_path / 'a.jpg', 64, 64, mode=mode)
    ours, theirs = compare(path, scale=scale, keep_ratio=True)
    # The smaller scale is reached by a decoding at half the size.
    assert (ours == theirs).all() == (scale == (50, 50))
    assert np.abs(ours.astype(float) - theirs).mean() < 20


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_other_formats_are_decoded_as_before(
    tmp_path: Path, suffix: str, dtype: type
) -> None:
    image = texture(64, 64).astype(dtype) * (1 if dtype == np.uint8 else 257)
    cv2.imwrite(str(tmp_path / f'a{suffix}'), image)
    ours, theirs = compare(tmp_path / f'a{suffix}', scale=(20, 20))
    assert (ours == theirs).all()


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (40, 1)])
def test_images_of_a_pixel_or_a_line(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = jpeg(tmp_path / 'a.jpg', *size)
    ours, theirs = compare(path, scale=(80, 80), keep_ratio=True)
    assert (ours == theirs).all()
    ours, theirs = compare(path, scale=(1, 1))
    assert np.abs(ours.astype(float) - theirs).max() < 60


@pytest.mark.parametrize('kept', [0, 1, 20, 200])
def test_cut_off_files_are_the_same_errors(tmp_path: Path, kept: int) -> None:
    path = jpeg(tmp_path / 'a.jpg', 64, 64)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Exception) as theirs:
        load(path, reduced=False, scale=(60, 60))
    with pytest.raises(type(theirs.value)):
        load(path, reduced=True, scale=(60, 60))


LOAD, ANNOTATIONS = {'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}
RESIZE = {'type': 'Resize', 'scale': (60, 40)}
CHOICE = {'type': 'RandomChoiceResize', 'scales': [(60, 40), (30, 20)]}
RANDOM = {'type': 'RandomResize', 'scale': (60, 40), 'ratio_range': (0.5, 1)}


def config(*pipeline: dict) -> Config:
    dataset = {'type': 'CocoDataset', 'pipeline': [*pipeline]}
    wrapped = {'type': 'RepeatDataset', 'dataset': dataset}
    return Config({'train_dataloader': {'dataset': copy.deepcopy(wrapped)}})


@pytest.mark.parametrize('resize', [RESIZE, CHOICE, RANDOM])
def test_the_option_replaces_loading_and_resizing(
    tmp_path: Path, resize: dict
) -> None:
    init_default_scope('mmdet')
    path = jpeg(tmp_path / 'a.jpg', 160, 240)
    cfg = config(LOAD, {**resize, 'keep_ratio': True}, {'type': 'RandomFlip'})
    use_reduced_decoding(cfg)
    steps = cfg.train_dataloader.dataset.dataset.pipeline
    loading, resizing = map(TRANSFORMS.build, steps[:2])
    np.random.seed(1)
    ours = resizing(loading({'img_path': str(path)}))
    np.random.seed(1)
    before = TRANSFORMS.build({**resize, 'keep_ratio': True})
    theirs = before(LoadImageFromFile()({'img_path': str(path)}))
    assert ours['scale_factor'] == theirs['scale_factor']
    assert not (ours['img'] == theirs['img']).all()


@pytest.mark.parametrize(
    'pipeline',
    [
        [LOAD],
        [RESIZE],
        [LOAD, {'type': 'RandomCrop'}, RESIZE],
        [LOAD, {'type': 'Resize', 'scale_factor': 0.5}],
        [{**LOAD, 'to_float32': True}, ANNOTATIONS, RESIZE],
        [LOAD, ANNOTATIONS, {**RANDOM, 'resize_type': 'FixScaleResize'}],
    ],
)
def test_pipelines_without_effect_are_refused(pipeline: list[dict]) -> None:
    with pytest.raises(UserError, match='reduced_decoding has no effect'):
        use_reduced_decoding(config(*pipeline))


def test_annotations_may_come_first() -> None:
    cfg = config(LOAD, ANNOTATIONS, RESIZE)
    use_reduced_decoding(cfg)
    kinds = [s.type for s in cfg.train_dataloader.dataset.dataset.pipeline]
    assert kinds == ['LoadEncodedImage', 'LoadAnnotations', 'DecodeAndResize']


def test_a_training_uses_the_option(tmp_path: Path) -> None:
    data = make_coco(tmp_path / 'data', 2, 1)
    train(tmp_path, data, more='reduced_decoding = True')
    dumped = Config.fromfile(tmp_path / 'work' / 'tiny.py')
    kinds = [s.type for s in dumped.train_dataloader.dataset.pipeline]
    assert kinds[:3] == [
        'LoadEncodedImage',
        'LoadAnnotations',
        'DecodeAndResize',
    ]
