# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad configs, and models that cannot be built from them."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from bad_input import World, mistake
from tiny_run import write_config

bad = partial(mistake, 'Config and model')
TRACKER = "visualizer = dict(vis_backends=[dict(type='{}')])"


def text(title: str, content: str, *quotes: str) -> None:
    """Registers the complete text of a config file."""

    @bad(title, *quotes)
    def _(world: World) -> None:
        world.config.write_text(content)
        world.train()


def more(title: str, line: str, *options: str) -> None:
    """Registers a line at the end of a good config."""

    @bad(title)
    def _(world: World) -> None:
        write_config(world.config, world.data, more=line)
        world.train(*options)


def option(title: str, value: str, *quotes: str) -> None:
    """Registers a value of --cfg-options."""
    bad(title, *quotes)(lambda world: world.set(value))


def build(**cfg: object) -> torch.nn.Module:
    """A model part by its config, as MMEngine builds it."""
    from mmengine.registry import init_default_scope

    from mmext.models.build import build_model

    init_default_scope('mmdet')
    return build_model(cfg)


def part(title: str, **cfg: object) -> None:
    """Registers the config of a model part."""
    bad(title)(lambda world: build(**cfg))


def starnet(title: str, arch: str = 's1', **cfg: object) -> None:
    part(title, type='StarNet', arch=arch, **cfg)


@bad('a config that does not exist')
def _(world: World) -> None:
    world.config = Path('tinny.py')
    world.train()


text('a config with a syntax error', 'model = dict(', 'does not load')
text('a config that inherits a missing file', "_base_ = 'gone.py'", 'gone.py')
text(
    'a config that imports an unknown module',
    "custom_imports = dict(imports=['mmxt'])",
    'mmxt',
)
option('an unknown backbone', 'model.backbone.type=StarNett')
option('an unknown argument of a backbone', '+model.backbone.dept=50')
option('a depth that ResNet does not have', 'model.backbone.depth=51', '51')
starnet('an unknown arch', arch='s5')
starnet('an output level that a backbone does not have', out_indices=(0, 7))
starnet('output levels out of order', out_indices=(3, 1))
starnet('more frozen stages than the backbone has', frozen_stages=9)
part('a depth that StepNet does not have', type='StepNetResNet', depth=42)
part(
    'an unknown kind of dynamic convolution',
    type='DWNet',
    arch='tiny',
    dynamic='inhomogenous',
)
part(
    'an even kernel size of ECA',
    type='ECAAttention',
    in_channels=64,
    kernel_size=4,
)


@bad('an image smaller than the stride')
def _(world: World) -> None:
    build(type='StarNet', arch='s1')(torch.zeros(1, 3, 20, 64))


@bad('an image with an alpha channel')
def _(world: World) -> None:
    build(type='StarNet', arch='s1')(torch.zeros(1, 4, 64, 64))


def timm(title: str, name: str, *quotes: str, **cfg: object) -> None:
    bad(title, *quotes)(
        lambda world: build(type='TimmBackbone', name=name, **cfg)
    )


timm('a model that timm does not have', 'convnext_tinny', 'convnext_tinny')
timm('weights that timm does not have', 'test_vit.in1k', 'in1k', 'r160_in1k')
timm('two sources of weights', 'test_vit', pretrained=True, init_cfg={})
timm('no weights in timm', 'gmlp_ti16_224', pretrained=True)
timm('an option that a model of timm does not take', 'vgg11', img_size=224)
timm('stages of a model without groups', 'csatv2', frozen_stages=1)


timm('an image size that timm refuses', 'test_vit_relpos', img_size=100)
timm('an image size without a width', 'test_vit', img_size=(64,))


@bad('a model of timm that gives no features')
def _(world: World) -> None:
    import mmext.timm_models  # noqa: F401

    build(type='TimmBackbone', name='mmext_starnet_s1')


@bad('timm is not installed')
def _(world: World) -> None:
    world.patch.setitem(sys.modules, 'timm', None)
    build(type='TimmBackbone', name='test_vit')


@bad('an image size that a model of timm does not take')
def _(world: World) -> None:
    model = build(type='TimmBackbone', name='test_vit_relpos')
    model(torch.zeros(1, 3, 96, 128))


part(
    'a stride that no pyramid fits',
    type='SimpleFeaturePyramid',
    in_channels=64,
    stride=4,
)
PLAIN = """model.update(
    backbone=dict(_delete_=True, type='TimmBackbone', name='test_vit'{}),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=64,
        out_channels=16, stride={}))
"""
more('a pyramid for another stride', PLAIN.format('', 14))
more(
    'pixels that pre-trained weights have not seen',
    PLAIN.format(', pretrained=True', 16),
)
DECAY = """optim_wrapper.update(
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate={}))
"""
more('a decay of learning rates above 1', DECAY.format(7))
more(
    'a decay of learning rates for a backbone without layers',
    DECAY.format(0.7),
)
option(
    'a neck with other channels than the backbone',
    'model.neck.in_channels=[256,512,1024,2048]',
)


@bad('a backbone that is frozen at random weights')
def _(world: World) -> None:
    kept = 'model.backbone.norm_eval=True'
    world.set('model.backbone.frozen_stages=1', kept)


BACKBONE = """
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

@MODELS.register_module(force=True)
class Odd(BaseModule):
    def __init__(self):
        super().__init__()
        widths = (3, 16, 32, 64, 128)
        self.steps = nn.ModuleList(
            nn.Conv2d(a, b, 3, 4 if a == 3 else 2, 1)
            for a, b in zip(widths, widths[1:])
        )
        self.classifier = nn.Linear(128, 10)

    def forward(self, x):
        outs = []
        for step in self.steps:
            outs.append(x := step(x))
        return {}
"""


def write_backbone(world: World, returns: str = 'tuple(outs)') -> None:
    """Writes a backbone of the user's, and a config with it."""
    name = f'odd_{abs(hash(returns))}'
    Path(f'{name}.py').write_text(BACKBONE.format(returns))
    world.patch.syspath_prepend(world.root)
    more = (
        "model['backbone'] = dict(_delete_=True, type='Odd')\n"
        f"custom_imports = dict(imports=['mmext', {name!r}])"
    )
    write_config(world.config, world.data, more=more)


def backbone(title: str, returns: str) -> None:
    @bad(title)
    def _(world: World) -> None:
        write_backbone(world, returns)
        world.train()


backbone('a backbone that returns one map', 'x')
backbone('a backbone that returns a dict', "dict(zip('abcd', outs))")


@bad('parameters without a gradient in several processes')
def _(world: World) -> None:
    from mmext.checks.preflight import preflight
    from mmext.utils.config import load_config

    write_backbone(world)
    cfg = load_config(world.config)
    cfg.launcher = 'pytorch'
    preflight(cfg, ('train',))


@bad('a backbone that does not exist')
def _(world: World) -> None:
    world.tool('misc/check_backbone', 'StarNett')


option(
    'a head with another number of classes than the data',
    'model.roi_head.bbox_head.num_classes=3',
)
option('a misspelt key of the config', 'optim_wraper.optimizer.lr=1')
option('an index beyond the end of a list', 'train_pipeline.9.type=Pad')
option('an unknown data set', 'train_dataloader.dataset.type=CocoDatset')


@bad('an unknown split of the drawn shapes')
def _(world: World) -> None:
    from mmext.datasets.shapes.dataset import ShapesDataset

    ShapesDataset(split='test')


option('zero epochs', 'train_cfg.max_epochs=0')
option('a word as the number of epochs', 'train_cfg.max_epochs=many')
option('a batch size of zero', 'train_dataloader.batch_size=0')
option(
    'a negative number of loading processes', 'train_dataloader.num_workers=-1'
)
option('a negative learning rate', 'optim_wrapper.optimizer.lr=-1')
option('an unknown optimizer', 'optim_wrapper.optimizer.type=AdamWW')
option(
    'an unknown argument of an optimizer',
    'optim_wrapper.optimizer.wight_decay=0.1',
)
more('an unknown hook', "custom_hooks = [dict(type='EMAHok')]")
option(
    'an unknown transform',
    'train_dataloader.dataset.pipeline.3.type=RandomFlop',
)
more('an unknown argument of a metric', "val_evaluator['metrics'] = 'bbox'")


@bad('an experiment tracker that is not installed')
def _(world: World) -> None:
    from mmext.checks import parts

    world.patch.setattr(parts, 'find_spec', lambda name: None)
    line = TRACKER.format('AimVisBackend')
    write_config(world.config, world.data, more=line)
    world.train()


more('a misspelt experiment tracker', TRACKER.format('WandVisBackend'))
option('a word as the seed', 'randomness.seed=lucky')
more(
    'no base batch for --auto-scale-lr',
    'auto_scale_lr = dict(_delete_=True)',
    '--auto-scale-lr',
)
more('a batch size that is no number', '', '--batch-size', 'all')
more('a number of workers that is no number', '', '--workers', 'all')
more(
    'reduced decoding of images that are cropped first',
    "train_pipeline.insert(2, dict(type='RandomCrop', crop_size=(64, 64)))\n"
    'reduced_decoding = True',
)


def regularizer(title: str, **options: object) -> None:
    @bad(title)
    def _(world: World) -> None:
        from mmext.regularizers import OrthogonalityHook

        kind = {'type': 'SoftOrthogonality'}
        hook = OrthogonalityHook(kind, weight=1.0, **options)
        model = build(type='ResNet', depth=18)
        hook.before_train(SimpleNamespace(model=model, logger=None))


regularizer(
    'a regularizer whose pattern matches no layer', layers='layer1.*conv9'
)
regularizer('a pattern that is not a regular expression', layers='conv[')
regularizer(
    'a loss name without the word loss', layers='conv1', loss_name='orth'
)
option('other IoU thresholds', '+val_evaluator.iou_thrs=[0.5]')
option(
    'other numbers of detections',
    '+val_evaluator.proposal_nums=[1,10,500]',
)
option('an unknown value to report', '+val_evaluator.metric_items=[mAP50]')


def wrapped(title: str, **wrapper: object) -> None:
    """Registers a wrapper of the validation data, for which 'one' stands."""
    text = repr(wrapper).replace("'one'", 'one')
    more(
        title,
        "one = dict(val_dataloader['dataset'], type='CocoDataset')\n"
        f"val_dataloader['dataset'] = dict({text}, _delete_=True)",
    )


wrapped(
    'two test sets with the same ids and one evaluator',
    type='ConcatDataset',
    datasets=['one', 'one'],
)
more(
    'a metric of each data set, for another number of them',
    "val_evaluator = dict(type='MultiDatasetsEvaluator', _delete_=True,\n"
    "    metrics=[dict(type='CocoMetric')] * 2, dataset_prefixes=['a', 'b'])",
)
wrapped(
    'validation images several times',
    type='RepeatDataset',
    times=2,
    dataset='one',
)
