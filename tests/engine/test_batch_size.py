# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The search for a batch size, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from same_end import assert_same_end
from tiny_run import write_config

import mmext
from mmext.engine import batch_size
from mmext.engine.batch_size import (
    find_batch_size,
    is_out_of_memory,
    set_batch_size,
)
from mmext.engine.optimizers import lr_scaling
from mmext.errors import UserError
from mmext.utils.config import load_config

GIB = 2**30
RATE = 'optim_wrapper.optimizer.lr'


@pytest.fixture
def cfg(data: Path, tmp_path: Path) -> Config:
    return load_config(write_config(tmp_path / 'tiny.py', data, epochs=1))


def gpu(
    monkeypatch: pytest.MonkeyPatch,
    bytes_of: Callable[[int], int],
    memory: int = 10 * GIB,
) -> list[int]:
    """Pretends a GPU on which a step of n images needs ``bytes_of(n)``.

    Returns the sizes that were tried.
    """
    tried: list[int] = []

    def seconds(_: object, __: object, images: int, steps: int) -> float:
        tried.append(images)
        return None if bytes_of(images) > memory else 1.0

    properties = SimpleNamespace(total_memory=memory)
    for name, result in {
        'get_device_properties': lambda _: properties,
        'reset_peak_memory_stats': lambda _: None,
        'max_memory_reserved': lambda _: bytes_of(tried[-1]),
    }.items():
        monkeypatch.setattr(torch.cuda, name, result)
    monkeypatch.setattr(batch_size, '_seconds', seconds)
    return tried


@pytest.mark.parametrize(
    ('images', 'expected', 'tried'),
    [
        (100, 8, [1, 2, 4, 8, 16, 12]),  # 9 GiB for 9 images
        (3, 2, [1, 2]),  # of the whole data set
    ],
)
def test_the_largest_batch_on_a_gpu(monkeypatch, images, expected, tried):
    found = gpu(monkeypatch, lambda n: n * GIB)
    lines: list[str] = []
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    best = batch_size._largest_on_gpu(runner, {}, images, lines.append)
    assert (best, found) == (expected, tried)
    assert lines[1] == 'batch of 2: 2.00 of 10.00 GiB'
    if images == 100:
        assert lines[4:] == [
            'batch of 16: out of memory',
            'batch of 12: out of memory',
        ]


def test_between_two_powers_and_a_margin(monkeypatch):
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    gpu(monkeypatch, lambda n: n * GIB // 2, memory=8 * GIB)
    # 16 images need all memory, 12 need 75 %.
    assert batch_size._largest_on_gpu(runner, {}, 99, print) == 12


def test_a_cpu_stops_when_a_larger_batch_gains_nothing(monkeypatch):
    times = {1: 1.0, 2: 1.5, 4: 2.5, 8: 4.9, 16: 9.8}
    monkeypatch.setattr(
        batch_size, '_seconds', lambda r, s, images, steps: times[images]
    )
    monkeypatch.setattr(batch_size, 'free_memory', lambda: GIB)
    monkeypatch.setattr(batch_size, '_peak_memory', lambda: 0)
    # 0.75, 0.625 and 0.6125 s an image: the last gains 2 %.
    assert batch_size._fast_on_cpu(None, {}, 99, print) == 4
    peaks = iter([0, 0, GIB // 4, GIB // 2])
    monkeypatch.setattr(batch_size, '_peak_memory', lambda: next(peaks))
    lines: list[str] = []
    assert batch_size._fast_on_cpu(None, {}, 99, lines.append) == 2
    assert lines[-1] == 'batch of 4: would need 1.0 GiB'


class Limited:
    """Makes training steps of more than some images run out of memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        from mmdet.models import TwoStageDetector

        real = TwoStageDetector.loss

        def loss(model: TwoStageDetector, inputs: torch.Tensor, *args: object):
            if len(inputs) > most:
                raise RuntimeError(
                    '[enforce fail at alloc_cpu.cpp:117] err == 0. '
                    "DefaultCPUAllocator: can't allocate memory: you tried"
                )
            return real(model, inputs, *args)

        monkeypatch.setattr(TwoStageDetector, 'loss', loss)
        monkeypatch.setattr(batch_size, 'LEAST_GAIN', 0.0)


def test_memory_that_runs_out(cfg, monkeypatch, tmp_path):
    """The step is undone, and the search ends with what fitted before."""
    Limited(monkeypatch, most=2)
    before = torch.get_rng_state(), sorted(tmp_path.rglob('*'))
    lines: list[str] = []
    assert find_batch_size(cfg, lines.append) == 2
    assert lines[-2:] == ['batch of 4: out of memory', 'Batch size: 2 (auto)']
    assert torch.equal(torch.get_rng_state(), before[0])
    assert sorted(tmp_path.rglob('*')) == before[1]


def test_no_image_fits(cfg, monkeypatch):
    Limited(monkeypatch, most=0)
    with pytest.raises(UserError, match='not even a batch of one image'):
        find_batch_size(cfg, print)


def test_other_errors_are_no_lack_of_memory(cfg):
    cfg.model.roi_head.bbox_head.in_channels = 7
    with pytest.raises(UserError, match='a training step fails'):
        find_batch_size(cfg, print)
    text = 'required rank 4 tensor to use channels_last memory format'
    assert not is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(torch.OutOfMemoryError('CUDA out of memory.'))
    assert is_out_of_memory(MemoryError())


def test_the_rate_is_scaled(cfg, tmp_path):
    """A batch size of the option trains as one of the config does."""
    file = Path(cfg.filename)
    rate = cfg.optim_wrapper.optimizer.lr
    old = cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr.base_batch_size == 16
    runner = mmext.train(file, work_dir=tmp_path / 'a', batch_size=2 * old)
    assert runner.cfg.train_dataloader.batch_size == 2 * old
    options = {'train_dataloader.batch_size': 2 * old, RATE: rate * old / 8}
    mmext.train(file, work_dir=tmp_path / 'b', cfg_options=options)
    assert_same_end(tmp_path / 'a/epoch_1.pth', tmp_path / 'b/epoch_1.pth')
    (log,) = (tmp_path / 'a').glob('*/*.log')
    assert f'x {2 * old} / 16 = {rate * old / 8:g}' in log.read_text()


@pytest.mark.parametrize('scaling', [None, {'enable': False}])
def test_a_config_without_a_base_batch(cfg, scaling):
    cfg.pop('auto_scale_lr')
    if scaling:
        cfg.auto_scale_lr = scaling
    old = cfg.train_dataloader.batch_size
    set_batch_size(cfg, 4 * old)
    assert cfg.auto_scale_lr == {'base_batch_size': old, 'enable': True}
    assert lr_scaling(cfg, 1).factor == 4


def test_auto_trains_what_its_number_trains(cfg, monkeypatch, tmp_path):
    """The search draws no random number of the training."""
    monkeypatch.setattr(batch_size, 'LEAST_GAIN', 1e9)  # stops at 1
    file = Path(cfg.filename)
    for name, images in (('a', 'auto'), ('b', 1)):
        mmext.train(file, work_dir=tmp_path / name, batch_size=images)
    assert_same_end(tmp_path / 'a/epoch_1.pth', tmp_path / 'b/epoch_1.pth')
    with pytest.raises(UserError, match='is to be resumed') as caught:
        mmext.train(
            file, work_dir=tmp_path / 'a', batch_size='auto', resume=True
        )
    assert 'Give the number' in caught.value.fix


@pytest.mark.parametrize('images', [0, -1, 'all', 2.5])
def test_wrong_sizes(cfg, images):
    with pytest.raises(UserError, match='batch-size is'):
        mmext.train(cfg, batch_size=images)


def test_a_batch_sampler_decides(cfg):
    del cfg.train_dataloader.batch_size
    with pytest.raises(UserError, match='has no batch_size'):
        mmext.train(cfg, batch_size=2)
