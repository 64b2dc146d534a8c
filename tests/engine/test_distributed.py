# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Two processes over gloo equal one process with the complete batch."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from commands import ROOT, TWO_PROCESSES, run_command
from forked import cpus, in_two_processes
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from tiny_run import EVERY, write_config
from torch import nn

from mmext.engine.distributed import (
    check_launcher,
    is_first_process,
    reported_once,
)
from mmext.engine.runner import ReliableRunner
from mmext.errors import UserError
from mmext.utils.config import load_config
from mmext.utils.modules import unwrap


@MODELS.register_module()
class NormOnly(BaseModel):
    """A convolution and a norm; SyncBN by its name or by ``sync_bn``."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm}[norm](4)

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor'):
        return self.norm(self.conv(inputs))


class Initial(Hook):
    """Keeps the weights that the training starts from."""

    def before_train(self, runner: Runner) -> None:
        self.state = state(runner.model)


def build(cfg: Config, **changes: object) -> ReliableRunner:
    """Builds a runner from a config with other values of some keys."""
    cfg = copy.deepcopy(cfg)
    for key, value in changes.items():
        cfg[key] = value
    return ReliableRunner.from_cfg(cfg)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        k.removeprefix('module.'): v.clone()
        for k, v in model.state_dict().items()
    }


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        k.removeprefix('module.'): p.grad.clone()
        for k, p in model.named_parameters()
        if p.grad is not None
    }


def sync_bn(cfg: Config) -> dict:
    """The statistics and gradients of six images, three in each process."""
    whole = torch.sin(torch.arange(6 * 3 * 9 * 7) * 0.37).view(6, 3, 9, 7)
    several, found = cfg.launcher != 'none', {}
    for name, norm, convert in (
        ('named', 'SyncBN', None),
        ('torch', 'BN', 'torch'),
        ('mmcv', 'BN', 'mmcv'),
        ('bf16', 'SyncBN', None),
    ):
        model = {'type': 'NormOnly', 'norm': norm if several else 'BN'}
        changes = {'model': model, 'sync_bn': convert}
        runner = build(cfg, **changes, experiment_name=name)
        torch.manual_seed(0)
        for value in runner.model.parameters():
            value.data.copy_(torch.randn(value.shape) * 0.3)
        runner.model.train()
        with torch.autocast('cpu', enabled=name == 'bf16'):
            mine = whole.chunk(runner.world_size)[runner.rank]
            result = runner.model(mine)
        # DDP averages over processes: the mean of equal shares is the mean.
        (result.sigmoid() ** 2).mean().backward()
        found[f'sync_bn_{name}'] = {
            'result': result.detach(),
            'state': state(runner.model),
            'gradients': gradients(runner.model),
        }
    return found


def whole_batch(cfg: Config) -> dict:
    """Gradients of a detector on four images, two in each process."""
    runner = build(cfg, experiment_name='gradients')
    model = unwrap(runner.model)
    for p, value in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(p)
        noise = torch.randn(value.shape, generator=generator)
        # In place: the buckets of DDP were made for this memory layout.
        value.data.copy_(noise * 0.5 / max(1, value[0].numel()) ** 0.5)
    runner.model.train()
    dataset = runner.build_dataloader(cfg.val_dataloader).dataset
    samples = [dataset[i] for i in range(4)]
    data = {
        key: [s[key] for s in samples][runner.rank :: runner.world_size]
        for key in ('inputs', 'data_samples')
    }
    data = model.data_preprocessor(data, training=True)
    loss, _ = model.parse_losses(runner.model(**data, mode='loss'))
    loss.backward()
    return {'gradients': gradients(runner.model), 'loss': loss.item()}


def training(cfg: Config) -> dict:
    """The weights before and after a training run with validation."""
    runner = build(cfg, experiment_name='training')
    hook = Initial()
    runner.register_hook(hook)
    runner.train()
    runner.save_checkpoint(cfg.work_dir, 'trained.pth')
    return {'initial': hook.state, 'trained': state(runner.model)}


def validation(cfg: Config, checkpoint: Path) -> dict:
    """Validates with one process what two processes have trained."""
    cfg = copy.deepcopy(cfg)
    evaluator = cfg.val_evaluator
    prefix = Path(evaluator.outfile_prefix)
    evaluator.outfile_prefix = str(prefix.with_name('alone'))
    cfg.load_from = str(checkpoint)
    build(cfg, experiment_name='alone').val()
    return {}


@pytest.fixture(scope='module')
def runs(tmp_path_factory, data) -> dict:
    """The results of one process and of each of two processes."""
    folder = tmp_path_factory.mktemp('ddp')
    config = write_config(
        folder / 'tiny.py',
        data,
        more=f'val_evaluator.update(outfile_prefix={str(folder / "val")!r})',
    )

    def work(world: int) -> dict:
        launcher = 'pytorch' if world > 1 else 'none'
        own = {'launcher': launcher, 'work_dir': str(folder / f'work_{world}')}
        cfg = load_config(config, own)
        return {
            **sync_bn(cfg),
            **whole_batch(load_config(config, {**own, **EVERY})),
            **(training(cfg) if world > 1 else validation(cfg, checkpoint)),
        }

    checkpoint = folder / 'work_2' / 'trained.pth'
    # Two processes first: one process then validates what they trained.
    both = in_two_processes(folder, lambda rank: work(2))
    return {'folder': folder, '2_0': both[0], '2_1': both[1], '1_0': work(1)}


@cpus
@pytest.mark.parametrize('name', ['named', 'torch', 'mmcv', 'bf16'])
def test_sync_bn_uses_the_complete_batch(runs, name):
    key = f'sync_bn_{name}'
    close = {'rtol': 1e-2, 'atol': 1e-3} if name == 'bf16' else {}
    one, rank0, rank1 = (runs[n][key] for n in ('1_0', '2_0', '2_1'))
    both = torch.cat([rank0['result'], rank1['result']])
    torch.testing.assert_close(both, one['result'], **close)
    assert rank0['state'].keys() == one['state'].keys()
    for name, value in one['state'].items():
        torch.testing.assert_close(
            rank0['state'][name], value, msg=name, **close
        )
        assert torch.equal(rank0['state'][name], rank1['state'][name])
    # Without synchronisation the results differ: the halves are different.
    assert one['state']['norm.running_var'].sub(1).abs().min() > 1e-3
    for name, value in one['gradients'].items():
        torch.testing.assert_close(
            rank0['gradients'][name],
            value,
            msg=name,
            **(close or {'rtol': 1e-4, 'atol': 1e-6}),
        )


@cpus
def test_gradients_of_two_halves_equal_those_of_the_batch(runs):
    one, rank0, rank1 = (runs[n]['gradients'] for n in ('1_0', '2_0', '2_1'))
    assert one.keys() == rank0.keys() and len(one) > 60
    for name, value in one.items():
        assert torch.equal(rank0[name], rank1[name])
        scale = value.abs().max()
        assert scale > 0, name
        assert (rank0[name] - value).abs().max() < 1e-3 * scale, name
    halves = [runs[n]['loss'] for n in ('2_0', '2_1')]
    assert halves[0] != pytest.approx(halves[1], rel=1e-6)
    assert sum(halves) / 2 == pytest.approx(runs['1_0']['loss'], rel=1e-5)


@cpus
def test_trained_parameters_are_equal_on_both_ranks(runs):
    rank0, rank1 = (runs[n]['trained'] for n in ('2_0', '2_1'))
    before = runs['2_0']['initial']
    moved = 0
    for name, value in rank0.items():
        # Validation uses the running statistics of every rank.
        assert torch.equal(value, rank1[name]), name
        moved += not torch.equal(value, before[name])
    assert moved > 60


@cpus
def test_every_image_is_validated_once(runs):
    # The sampler pads five images to six; the last one must be removed.
    results, alone = (
        json.loads((runs['folder'] / f'{name}.bbox.json').read_text())
        for name in ('val', 'alone')
    )
    seen = {(r['image_id'], r['score'], *r['bbox']) for r in results}
    assert len(seen) == len(results)
    assert {r['image_id'] for r in results} == {1, 2, 3, 4, 5}

    def sort(rows: list[dict]) -> list[tuple]:
        return sorted(
            (r['image_id'], r['category_id'], r['score'], *r['bbox'])
            for r in rows
        )

    assert len(alone) == len(results)
    for mine, other in zip(sort(results), sort(alone), strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-3)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    environ = {
        'RANK': '6',
        'LOCAL_RANK': '2',
        'WORLD_SIZE': '8',
        'MASTER_ADDR': 'a',
        'MASTER_PORT': '1',
    }
    with pytest.raises(UserError, match='process 2 .* has no GPU: 2 visible'):
        check_launcher('pytorch', environ)
    check_launcher('pytorch', environ | {'LOCAL_RANK': '1'})
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    check_launcher('pytorch', environ)


def test_no_process_writes_before_the_first_has_checked(tmp_path, data):
    config = write_config(tmp_path / 'tiny.py', data)
    work = tmp_path / 'work'
    done = run_command(
        *(*TWO_PROCESSES, ROOT / 'tools/train.py', config, '--work-dir', work),
        *('--launcher', 'pytorch', '--cfg-options'),
        'model.roi_head.bbox_head.num_classes=3',
    )
    assert '2 classes (square, disc), but roi_head.bbox_head' in done.stderr
    assert done.returncode and not work.exists()


def test_first_process_of_each_launcher():
    assert is_first_process('none', {'RANK': '1'})
    assert not is_first_process('pytorch', {'RANK': '1'})
    assert not is_first_process('slurm', {'SLURM_PROCID': '3', 'RANK': '0'})
    assert is_first_process('mpi', {'OMPI_COMM_WORLD_RANK': '0'})


def test_an_error_of_all_processes_is_reported_once(monkeypatch):
    problem = 'config gone.py does not exist'
    monkeypatch.setenv('LOCAL_RANK', '1')
    with pytest.raises(SystemExit) as end, reported_once('pytorch'):
        raise UserError(problem)
    assert end.value.code == 0  # else the first process could be ended
    for rank, launcher in (('0', 'pytorch'), ('1', 'none')):
        monkeypatch.setenv('LOCAL_RANK', rank)
        with pytest.raises(UserError, match=problem), reported_once(launcher):
            raise UserError(problem)
