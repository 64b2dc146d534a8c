# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The header, the schedule and the weights of a config are as documented."""

from __future__ import annotations

import re
import shlex

import pytest
from commands import ROOT
from leaves import LEAVES, build_cheaply, header, load
from mmengine.config import Config

STARTERS = ('tools/', 'bash ', 'python ', 'MMEXT_DATA=')


def command(name: str) -> list[str]:
    """The command in a config's header, as a shell reads it."""
    lines = header(name)
    begin = [i for i, line in enumerate(lines) if line.startswith(STARTERS)]
    assert len(begin) == 1, f'{name}: {len(begin)} commands'
    text = lines[begin[0]]
    for line in lines[begin[0] + 1 :]:
        if not text.endswith('\\'):
            break
        text = text[:-1] + line
    return shlex.split(text)


@pytest.mark.parametrize('name', LEAVES)
def test_a_leaf_is_short_and_its_header_has_the_result(name: str) -> None:
    assert len(LEAVES[name].read_text().splitlines()) <= 25
    assert re.search('Result:|[Nn]ot trained', ' '.join(header(name)))


@pytest.mark.parametrize('name', LEAVES)
def test_the_header_has_the_command_that_runs_the_config(name: str) -> None:
    words = command(name)
    config = str(LEAVES[name].relative_to(ROOT))
    before, after = words[: words.index(config)], words[words.index(config) :]
    processes = re.search(r'_(\d+)xb\d+-', name)
    if 'tools/dist_train.sh' in before:
        assert after == [config, processes[1] if processes else '8']
    elif 'theory' not in LEAVES[name].parts:
        assert before[-2:] == ['python', 'tools/train.py']
        assert after[1:] in ([], ['--amp'], ['--data', 'my_data'])


@pytest.mark.parametrize('name', [n for n in LEAVES if '_ade20k' in n])
def test_segmentors_start_where_the_authors_did(name: str) -> None:
    """From ImageNet weights if such weights are released."""
    init = load(name).model.backbone.get('init_cfg')
    if 'inhomogeneous' in name:
        assert init is None
        return
    arch = re.search(r'tiny|base|s1', name)[0]
    file = {
        's1': 'starnet_s1.pth.tar',
        'tiny': 'dwnet_tiny_224.pth',
        'base': 'dwnet_base_224.pth',
    }[arch]
    dynamic = 'dynamic_' if 'homogeneous' in name else ''
    assert init.type == 'Pretrained'
    assert init.checkpoint.endswith(f'/{dynamic}{file}')


@pytest.mark.parametrize(
    'name', [n for n in LEAVES if 's1_160k' in n or 'tiny_160k' in n]
)
def test_rates_fall_to_zero(name: str) -> None:
    """A schedule inherited from SGD must not end at AdamW's rate."""
    cfg = load(name)
    last = cfg.param_scheduler[-1]
    assert (last.type, last.end) == ('PolyLR', cfg.train_cfg.max_iters)
    assert last.eta_min == 0
    assert cfg.auto_scale_lr.base_batch_size == (
        8 * cfg.train_dataloader.batch_size
    )


def check_cascade_schedule(cfg: Config) -> None:
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.by_epoch, warm_up.end) == (False, 500)
    assert (steps.by_epoch, steps.end) == (True, 36)
    assert steps.milestones == [27, 33]


def test_cascade_swin_has_the_schedule_of_the_dwnets() -> None:
    name = 'cascade-mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco'
    check_cascade_schedule(load(name))


@pytest.mark.parametrize(
    ('backbone', 'millions', 'rate'),
    [
        ('tiny', 82, 0.2),
        ('base', 132, 0.3),
        ('tiny-homogeneous', 108, 0.2),
        ('base-homogeneous', 219, 0.3),
    ],
)
def test_cascade_dwnets_are_the_published_ones(
    backbone: str, millions: int, rate: float
) -> None:
    """Sizes: the README of Atten4Vis/DemystifyLocalViT."""
    cfg = load(f'cascade-mask-rcnn_dwnet-{backbone}_fpn_ms-crop-3x_coco')
    model = build_cheaply(cfg)
    params = sum(p.numel() for p in model.parameters())
    assert round(params / 1e6) == millions
    check_cascade_schedule(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05}
    heads = model.roi_head.bbox_head
    assert [len(head.shared_convs) for head in heads] == [4, 4, 4]
    block = model.backbone.layers[-1].blocks[-1]
    assert block.drop_path.drop_prob == pytest.approx(rate)


@pytest.mark.parametrize('name', ['starnet-s1', 'demonet-d12-w192'])
def test_starnets_script_warms_up_for_five_epochs(name: str) -> None:
    cfg = load(f'{name}_8xb256-300e_in1k')
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.end, cosine.begin, cosine.eta_min) == (5, 5, 1e-5)
    assert cfg.auto_scale_lr.base_batch_size == 2048
    erasing = cfg.train_dataloader.dataset.pipeline[-2]
    assert (erasing.type, erasing.max_area_ratio) == ('RandomErasing', 1 / 3)


def test_dwnet_clips_gradients_as_its_script() -> None:
    cfg = load('dwnet-tiny_8xb128-300e_in1k')
    assert cfg.optim_wrapper.clip_grad == {'max_norm': 5.0}
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
