# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Loaders with fewer copies bring the pixels and annotations of mmdet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from tiny_run import CLASSES, make_coco
from torch.utils.data import DataLoader, Dataset

from mmext.datasets.loading import PackChannelsLastInputs, transport
from mmext.engine.runner import ReliableRunner
from mmext.utils.random_state import seed_everything

LOAD = [
    {'type': 'LoadImageFromFile'},
    {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
]
PIPELINES = {
    '1x': [
        {'type': 'Resize', 'scale': (333, 200), 'keep_ratio': True},
        {'type': 'RandomFlip', 'prob': 0.5},
    ],
    'jitter': [
        {
            'type': 'RandomResize',
            'scale': (200, 200),
            'ratio_range': (0.5, 2.0),
            'keep_ratio': True,
        },
        {
            'type': 'RandomCrop',
            'crop_size': (120, 120),
            'crop_type': 'absolute',
            'allow_negative_crop': True,
        },
        {
            'type': 'RandomFlip',
            'prob': [0.3, 0.3, 0.3],
            'direction': ['horizontal', 'vertical', 'diagonal'],
        },
    ],
    'colours': [
        {
            'type': 'RandomChoiceResize',
            'scales': [(333, 100), (333, 150)],
            'keep_ratio': True,
        },
        {'type': 'RandomFlip', 'prob': 0.5},
        {'type': 'PhotoMetricDistortion'},
    ],
    'mosaic': [
        {'type': 'CachedMosaic', 'img_scale': (96, 96), 'pad_val': 114.0},
        {'type': 'RandomCrop', 'crop_size': (96, 96)},
        {'type': 'YOLOXHSVRandomAug'},
        {'type': 'RandomFlip', 'prob': 0.5},
        {'type': 'CachedMixUp', 'img_scale': (96, 96)},
    ],
}


def config(data: Path, steps: list[dict], workers: int) -> dict[str, Any]:
    return {
        'batch_size': 2,
        'num_workers': workers,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'dataset': {
            'type': 'CocoDataset',
            'data_root': str(data),
            'ann_file': 'train.json',
            'data_prefix': {'img': 'train/'},
            'metainfo': {'classes': CLASSES},
            'pipeline': [*LOAD, *steps, {'type': 'PackDetInputs'}],
        },
    }


def same(ours: Any, theirs: Any) -> bool:
    """Compares batches; what a sample holds is compared by its fields."""
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, np.ndarray):
        return np.array_equal(ours, theirs)
    if isinstance(ours, BaseDataElement):
        return same(dict(ours.all_items()), dict(theirs.all_items()))
    if isinstance(ours, BitmapMasks | PolygonMasks):
        return same(ours.masks, theirs.masks)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(
            same(ours[key], theirs[key]) for key in ours
        )
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if hasattr(ours, 'tensor'):  # boxes
        return same(ours.tensor, theirs.tensor)
    return ours == theirs


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco(tmp_path_factory.mktemp('data') / 'coco', 6, 1)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('name', PIPELINES)
def test_batches_are_those_of_mmengine(
    data: Path, name: str, workers: int
) -> None:
    init_default_scope('mmdet')
    found = []
    for build in (Runner, ReliableRunner):
        loader = build.build_dataloader(
            config(data, PIPELINES[name], workers), seed=0
        )
        seed_everything(3)
        found.append([*loader])
    theirs, ours = found
    assert len(ours) == 3
    assert same(ours, theirs)
    kinds = {type(loader.dataset.pipeline.transforms[-1])}
    assert kinds == {PackChannelsLastInputs}
    if name == '1x':
        assert all(
            image.permute(1, 2, 0).is_contiguous()
            for batch in ours
            for image in batch['inputs']
        )


@pytest.mark.parametrize('channels', [None, 1, 3, 4])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32', 'float64'])
@pytest.mark.parametrize(
    'view',
    [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[2:7, 3:8],
        lambda a: a[2:7, 8:3:-1],
        lambda a: a[:1, :1][:, ::-1],
        lambda a: a.swapaxes(0, 1)[:, ::-1],
    ],
    ids=['all', 'right', 'down', 'both', 'crop', 'crop-right', 'pixel', 't'],
)
def test_packed_images(view, dtype, channels) -> None:
    shape = (9, 11) if channels is None else (9, 11, channels)
    image = np.random.randint(0, 250, shape).astype(dtype)
    packed = PackChannelsLastInputs().transform({'img': view(image)})
    expected = PackDetInputs().transform({'img': view(image).copy()})
    assert same(packed, expected)
    if channels not in (None, 1):  # mmdet does not copy these either
        packed['inputs'][:] = 0
        assert image.any(), 'an image that something caches would change'


def test_packed_channel_order_is_not_copied_twice() -> None:
    image = np.random.rand(5, 6, 3)[..., [2, 0, 1]]
    packed = PackChannelsLastInputs().transform({'img': image})
    assert same(packed, PackDetInputs().transform({'img': image}))


class Values(Dataset):
    """Samples of large arrays that can be computed again."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = transport.empty((64, 100, 3), np.dtype('uint8'))
        image[:] = index
        return {
            'image': torch.from_numpy(image).permute(2, 0, 1),
            'again': torch.from_numpy(image)[0],
            'masks': np.full((4, 90, 100), index),
            'boxes': torch.full((3, 4), float(index)),
        }


def loader(dataset: Dataset, workers: int = 1) -> DataLoader:
    built = DataLoader(
        dataset,
        batch_size=2,
        num_workers=workers,
        collate_fn=lambda batch: batch,
    )
    transport.send_compactly(built)
    return built


linux = pytest.mark.skipif(
    not hasattr(__import__('os'), 'memfd_create'), reason='needs Linux'
)


@linux
def test_what_is_kept_is_not_overwritten() -> None:
    kept = []
    for number, (first, second) in enumerate(loader(Values(), workers=2)):
        # Views, of which only a part stays.
        kept.append((2 * number, first['image'][:, :3], first['masks'][1:]))
        kept.append((2 * number + 1, second['again'][:2], second['boxes'][0]))
    assert len(kept) == 40
    assert all((a == i).all() and (b == i).all() for i, a, b in kept)


@linux
def test_buffers_are_used_again() -> None:
    transport._mapped.clear()
    for batch in loader(Values()):
        assert batch[0]['image'].numel() == 19200
    # Two batches wait, one is read, one is written: of two images each, with
    # masks and rows of the image, which are small.
    assert len(transport._mapped) <= 16
    del batch
    used = [memory[0] for memory in transport._mapped.values()]
    assert used.count(transport.FREE) == len(used)


class Doubled(Values):
    """A sample has the same memory twice."""

    def __getitem__(self, index: int) -> Any:
        image = super().__getitem__(index)['image']
        return image, image[:]


@linux
def test_what_a_worker_sends_twice_is_not_freed_twice() -> None:
    kept = []
    for number, ((one, two), _) in enumerate(loader(Doubled())):
        kept.append((2 * number, one if number % 2 else two))
        del one, two
    assert all((value == expected).all() for expected, value in kept)


class Given(Dataset):
    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        return self.values[index]


@linux
def test_tensors_of_all_kinds_arrive() -> None:
    torch.manual_seed(0)
    large = torch.rand(3, 80, 100)
    values = [
        large,
        large.permute(2, 0, 1),
        large[:, ::2, :50],
        large.bfloat16(),
        large.clone().requires_grad_().detach(),
        large > 0.5,
        torch.empty(0, 4),
        torch.tensor(3),
        torch.arange(9000).share_memory_(),
        torch.eye(4).to_sparse(),
        torch.nn.Parameter(torch.ones(2)),
        np.asfortranarray(np.random.rand(60, 80)),
        np.random.rand(60, 80)[:, ::-1],
        np.array([None, 'text'] * 3000),
        np.zeros(9000, [('a', 'i4'), ('b', 'f8')]),
        np.full(9000, np.datetime64('2026-01-02')),
        np.ma.masked_array(np.arange(9000), mask=np.arange(9000) % 2 > 0),
        np.broadcast_to(np.arange(3.0), (4000, 3)),
    ]
    arrived = [value for batch in loader(Given(values)) for value in batch]
    for ours, sent in zip(arrived, values, strict=True):
        assert type(ours) is type(sent)
        assert ours.dtype == sent.dtype
        if isinstance(sent, torch.Tensor):
            assert torch.equal(ours.to_dense(), sent.to_dense())
        else:
            np.testing.assert_array_equal(ours, sent)
            ours[:1] = ours[1:2]  # can be written
    assert arrived[1].stride() == values[1].stride()
    assert arrived[11].flags.f_contiguous


@linux
def test_other_workers_replace_the_mapped_memory() -> None:
    values = loader(Values())
    for _ in range(3):
        assert len([*values]) == 20
    assert len({process for process, _ in transport._mapped}) == 1
