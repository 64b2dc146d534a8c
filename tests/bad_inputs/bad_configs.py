# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Bad configs, and models that cannot be built from them."""

from __future__ import annotations

from pathlib import Path

import torch
from bad_input import World, bad
from tiny_run import write_config

GROUP = 'Config and model'


def build(**cfg: object) -> torch.nn.Module:
    """A model part by its config, as MMEngine builds it."""
    from mmengine.registry import init_default_scope

    from mmext.models.build import build_model

    init_default_scope('mmdet')
    return build_model(cfg)


@bad(GROUP, 'a config that does not exist', "Did you mean 'tiny.py'?")
def _(world: World) -> None:
    world.config = Path('tinny.py')
    world.train()


@bad(GROUP, 'a config with a syntax error', 'does not load', quotes=True)
def _(world: World) -> None:
    world.config.write_text('model = dict(')
    world.train()


@bad(GROUP, 'a config that inherits a missing file', 'gone.py', quotes=True)
def _(world: World) -> None:
    world.config.write_text("_base_ = 'gone.py'")
    world.train()


@bad(GROUP, 'a config that imports an unknown module', 'mmxt', quotes=True)
def _(world: World) -> None:
    world.config.write_text("custom_imports = dict(imports=['mmxt'])")
    world.train()


@bad(GROUP, 'an unknown backbone', "'StarNett'", "Did you mean 'StarNet'?")
def _(world: World) -> None:
    world.set('model.backbone.type=StarNett')


@bad(GROUP, 'an unknown argument of a backbone', "'dept'", "'depth'?")
def _(world: World) -> None:
    world.set('+model.backbone.dept=50')


@bad(GROUP, 'a depth that ResNet does not have', '51', quotes=True)
def _(world: World) -> None:
    world.set('model.backbone.depth=51')


@bad(GROUP, 'an unknown arch', "arch='s5'", "'s4'")
def _(world: World) -> None:
    build(type='StarNet', arch='s5')


@bad(
    GROUP, 'an output level that a backbone does not have', '(0, 7)', '0 to 3'
)
def _(world: World) -> None:
    build(type='StarNet', arch='s1', out_indices=(0, 7))


@bad(GROUP, 'output levels out of order', '(3, 1)', 'Write (1, 3)')
def _(world: World) -> None:
    build(type='StarNet', arch='s1', out_indices=(3, 1))


@bad(GROUP, 'more frozen stages than the backbone has', 'frozen_stages=9')
def _(world: World) -> None:
    build(type='StarNet', arch='s1', frozen_stages=9)


@bad(GROUP, 'a depth that StepNet does not have', 'depth=42', '50')
def _(world: World) -> None:
    build(type='StepNetResNet', depth=42)


@bad(GROUP, 'an unknown kind of dynamic convolution', "dynamic='inhomogenous'")
def _(world: World) -> None:
    build(type='DWNet', arch='tiny', dynamic='inhomogenous')


@bad(GROUP, 'an even kernel size of ECA', 'kernel_size=4', 'Use 5')
def _(world: World) -> None:
    build(type='ECAAttention', in_channels=64, kernel_size=4)


@bad(GROUP, 'an image smaller than the stride', '20x64', 'at least 32x32')
def _(world: World) -> None:
    build(type='StarNet', arch='s1')(torch.zeros(1, 3, 20, 64))


@bad(GROUP, 'an image with an alpha channel', '(1, 4, 64, 64)', '3')
def _(world: World) -> None:
    build(type='StarNet', arch='s1')(torch.zeros(1, 4, 64, 64))


@bad(GROUP, 'a neck with other channels than the backbone', 'neck')
def _(world: World) -> None:
    world.set('model.neck.in_channels=[256,512,1024,2048]')


@bad(
    GROUP,
    'a backbone that is frozen at random weights',
    'freezes 5 tensors',
    'model.backbone.frozen_stages=-1 model.backbone.norm_eval=False',
)
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


def write_backbone(world: World, returns: str) -> None:
    """Writes a backbone of the user's, and a config with it."""
    name = f'odd_{abs(hash(returns))}'
    Path(f'{name}.py').write_text(BACKBONE.format(returns))
    world.patch.syspath_prepend(world.root)
    more = (
        "model['backbone'] = dict(_delete_=True, type='Odd')\n"
        f"custom_imports = dict(imports=['mmext', {name!r}])"
    )
    write_config(world.config, world.data, more=more)


@bad(
    GROUP,
    'a backbone that returns one map',
    'Odd returns a Tensor of shape (1, 128, 4, 4)',
    'Return (x,)',
)
def _(world: World) -> None:
    write_backbone(world, 'x')
    world.train()


@bad(
    GROUP,
    'a backbone that returns a dict',
    'Odd returns a dict with the keys a, b, c, d',
    'tuple(maps.values())',
)
def _(world: World) -> None:
    write_backbone(world, "dict(zip('abcd', outs))")
    world.train()


@bad(
    GROUP,
    'parameters without a gradient in several processes',
    'model.backbone.classifier.weight',
    'find_unused_parameters=True',
)
def _(world: World) -> None:
    from mmext.checks.preflight import preflight
    from mmext.utils.config import load_config

    write_backbone(world, 'tuple(outs)')
    cfg = load_config(world.config)
    cfg.launcher = 'pytorch'
    preflight(cfg, ('train',))


@bad(
    GROUP,
    'a backbone that does not exist',
    'StarNett is no config',
    "Did you mean 'StarNet'?",
)
def _(world: World) -> None:
    world.tool('misc/check_backbone', 'StarNett')


@bad(
    GROUP,
    'a head with another number of classes than the data',
    'num_classes',
    '3',
    '2',
)
def _(world: World) -> None:
    world.set('model.roi_head.bbox_head.num_classes=3')


@bad(GROUP, 'a misspelt key of the config', "Did you mean 'optim_wrapper'?")
def _(world: World) -> None:
    world.set('optim_wraper.optimizer.lr=1')


@bad(GROUP, 'an index beyond the end of a list', 'a list of 5', '0 to 4')
def _(world: World) -> None:
    world.set('train_pipeline.9.type=Pad')


@bad(GROUP, 'an unknown data set', "'CocoDatset'", "'CocoDataset'?")
def _(world: World) -> None:
    world.set('train_dataloader.dataset.type=CocoDatset')


@bad(GROUP, 'an unknown split of the drawn shapes', "'test'", "'train'")
def _(world: World) -> None:
    from mmext.datasets.shapes.dataset import ShapesDataset

    ShapesDataset(split='test')


@bad(GROUP, 'zero epochs', 'train_cfg.max_epochs is 0', 'at least 1')
def _(world: World) -> None:
    world.set('train_cfg.max_epochs=0')


@bad(GROUP, 'a word as the number of epochs', "train_cfg.max_epochs is 'many'")
def _(world: World) -> None:
    world.set('train_cfg.max_epochs=many')


@bad(GROUP, 'a batch size of zero', 'train_dataloader.batch_size is 0')
def _(world: World) -> None:
    world.set('train_dataloader.batch_size=0')


@bad(GROUP, 'a negative number of loading processes', 'num_workers is -1')
def _(world: World) -> None:
    world.set('train_dataloader.num_workers=-1')


@bad(GROUP, 'a negative learning rate', 'optimizer.lr is -1')
def _(world: World) -> None:
    world.set('optim_wrapper.optimizer.lr=-1')


@bad(GROUP, 'an unknown optimizer', "'AdamWW'", "Did you mean 'AdamW'?")
def _(world: World) -> None:
    world.set('optim_wrapper.optimizer.type=AdamWW')


@bad(GROUP, 'an unknown argument of an optimizer', "'wight_decay'")
def _(world: World) -> None:
    world.set('optim_wrapper.optimizer.wight_decay=0.1')


@bad(GROUP, 'an unknown hook', "custom_hooks.0.type: 'EMAHok'", "'EMAHook'?")
def _(world: World) -> None:
    more = "custom_hooks = [dict(type='EMAHok')]"
    write_config(world.config, world.data, more=more)
    world.train()


@bad(GROUP, 'an unknown transform', 'pipeline.3.type', "'RandomFlip'?")
def _(world: World) -> None:
    world.set('train_dataloader.dataset.pipeline.3.type=RandomFlop')


@bad(GROUP, 'an unknown argument of a metric', "'metrics'", "'metric'?")
def _(world: World) -> None:
    more = "val_evaluator['metrics'] = 'bbox'"
    write_config(world.config, world.data, more=more)
    world.train()


@bad(GROUP, 'an experiment tracker that is not installed', 'pip install aim')
def _(world: World) -> None:
    from mmext.checks import parts

    world.patch.setattr(parts, 'find_spec', lambda name: None)
    more = "visualizer = dict(vis_backends=[dict(type='AimVisBackend')])"
    write_config(world.config, world.data, more=more)
    world.train()


@bad(GROUP, 'a misspelt experiment tracker', "'WandbVisBackend'?")
def _(world: World) -> None:
    more = "visualizer = dict(vis_backends=[dict(type='WandVisBackend')])"
    write_config(world.config, world.data, more=more)
    world.train()


@bad(GROUP, 'a word as the seed', 'randomness.seed is')
def _(world: World) -> None:
    world.set('randomness.seed=lucky')


@bad(GROUP, 'no base batch for --auto-scale-lr', 'base_batch_size=16')
def _(world: World) -> None:
    more = 'auto_scale_lr = dict(_delete_=True)'
    write_config(world.config, world.data, more=more)
    world.train('--auto-scale-lr')


@bad(GROUP, 'a regularizer whose pattern matches no layer', 'conv9', 'conv')
def _(world: World) -> None:
    _orthogonality(world, layers='layer1.*conv9')


@bad(GROUP, 'a pattern that is not a regular expression', "'conv['")
def _(world: World) -> None:
    _orthogonality(world, layers='conv[')


@bad(GROUP, 'a loss name without the word loss', "'orth'")
def _(world: World) -> None:
    _orthogonality(world, layers='conv1', loss_name='orth')


def _orthogonality(world: World, **options: object) -> None:
    from types import SimpleNamespace

    from mmext.regularizers import OrthogonalityHook

    regularizer = {'type': 'SoftOrthogonality'}
    hook = OrthogonalityHook(regularizer, weight=1.0, **options)
    model = build(type='ResNet', depth=18)
    hook.before_train(SimpleNamespace(model=model, logger=None))


@bad(GROUP, 'other IoU thresholds', 'iou_thrs is [0.5]')
def _(world: World) -> None:
    world.set('+val_evaluator.iou_thrs=[0.5]')


@bad(GROUP, 'other numbers of detections', 'proposal_nums is [1, 10, 500]')
def _(world: World) -> None:
    world.set('+val_evaluator.proposal_nums=[1,10,500]')


@bad(GROUP, 'an unknown value to report', "Did you mean 'mAP_50'?")
def _(world: World) -> None:
    world.set('+val_evaluator.metric_items=[mAP50]')


def wrap_validation(world: World, **wrapper: object) -> None:
    """Puts the validation data into a wrapper; 'one' stands for them."""
    text = repr(wrapper).replace("'one'", 'one')
    with world.config.open('a') as file:
        file.write(
            "one = dict(val_dataloader['dataset'], type='CocoDataset')\n"
            f"val_dataloader['dataset'] = dict({text}, _delete_=True)\n"
        )
    world.train()


@bad(GROUP, 'two test sets with the same ids and one evaluator', 'occur in')
def _(world: World) -> None:
    wrap_validation(world, type='ConcatDataset', datasets=['one', 'one'])


@bad(GROUP, 'validation images several times', 'RepeatDataset')
def _(world: World) -> None:
    wrap_validation(world, type='RepeatDataset', times=2, dataset='one')
