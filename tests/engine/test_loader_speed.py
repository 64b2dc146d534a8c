# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The verdict on a loader, and the number of workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from same_end import assert_same_end
from tiny_run import write_config

import mmext
from mmext.engine import loader_speed
from mmext.engine.loader_speed import (
    LoaderSpeed,
    find_workers,
    measure_loader,
)
from mmext.errors import UserError
from mmext.utils.config import load_config


@pytest.fixture
def cfg(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(loader_speed, 'SECONDS', 0.2)
    return load_config(write_config(tmp_path / 'tiny.py', data, epochs=1))


@pytest.mark.parametrize(
    'workers, loader, model, needed, verdict',
    [
        (1, 100, 20, 1, 'is not the bottleneck.'),
        (1, 100, 100, 2, ': set num_workers=2.'),  # with a margin
        (2, 200, 300, 4, ': set num_workers=4.'),
        (4, 100, 400, 8, ': set num_workers=8.'),
        (8, 100, 400, 8, 'is the bottleneck on 8 cores.'),
        (0, 150, 50, 1, 'waits for 25% of the time: set num_workers=1.'),
    ],
)
def test_verdicts(
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    loader: float,
    model: float,
    needed: int,
    verdict: str,
) -> None:
    monkeypatch.setattr(loader_speed, 'cores', lambda: 8)
    speed = LoaderSpeed(workers, loader, model)
    assert speed.needed == needed
    assert verdict in str(speed)


class Slow:
    """Makes each image wait."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch):
        import time

        from mmdet.datasets.transforms import PackDetInputs

        real = PackDetInputs.transform

        def transform(packing: PackDetInputs, results: dict) -> dict:
            time.sleep(seconds)
            return real(packing, results)

        monkeypatch.setattr(PackDetInputs, 'transform', transform)


def test_a_slow_loader_is_measured(
    cfg: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A loader that sleeps 50 ms an image cannot feed more than 20."""
    Slow(0.05, monkeypatch)
    before = torch.get_rng_state(), sorted(tmp_path.rglob('*'))
    for workers in (0, 1):
        speed = measure_loader(cfg, workers)
        assert speed.workers == workers
        assert 0 < speed.loader <= 20 * 1.3  # the clock starts in a wait
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert torch.equal(torch.get_rng_state(), before[0])
    assert sorted(tmp_path.rglob('*')) == before[1]
    lines: list[str] = []
    monkeypatch.setattr(loader_speed, 'cores', lambda: 3)
    found = find_workers(cfg, lines.append)
    assert 1 <= found <= 3
    assert lines[0].startswith('Loads images for ')
    assert lines[-1].startswith(f'Workers: {found} (auto): one feeds ')


def test_auto_trains_what_its_number_trains(
    cfg: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loader_speed, 'cores', lambda: 1)
    file = Path(cfg.filename)
    for name, workers in (('a', 'auto'), ('b', 1)):
        runner = mmext.train(file, work_dir=tmp_path / name, workers=workers)
        assert runner.cfg.train_dataloader.num_workers == 1
    assert_same_end(tmp_path / 'a/epoch_1.pth', tmp_path / 'b/epoch_1.pth')
    with pytest.raises(UserError, match='--workers auto: .*is to be resumed'):
        mmext.train(file, work_dir=tmp_path / 'a', workers='auto', resume=True)


@pytest.mark.parametrize('workers', [-1, 'all', 2.5])
def test_wrong_numbers(cfg: Config, workers: object) -> None:
    with pytest.raises(UserError, match='--workers is'):
        mmext.train(cfg, workers=workers)


def test_a_config_that_does_not_train(cfg: Config) -> None:
    cfg.pop('train_dataloader')
    with pytest.raises(UserError, match='has no train_dataloader'):
        measure_loader(cfg)
