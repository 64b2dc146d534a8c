# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mmdet's ResNet, told apart into old layers and new ones.

An ordinary ResNet checkpoint fills the convolutions and norms; attention
plugins, step adaptors and the offsets of deformable convolutions are new.
mmdet's ResNet freezes whole stages (``frozen_stages``) and every BN
(``norm_eval``), new layers included, at values that nobody has trained, and
loads a checkpoint of another architecture with no more than a warning. Here
new layers stay trainable, and what a checkpoint filled is accounted for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mmdet.models.backbones.resnet import ResNet
from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from torch import nn

from mmext.checkpoints.match import match
from mmext.checkpoints.pretrained import describe
from mmext.checkpoints.released import strip_prefix, unwrap
from mmext.errors import UserError

# What ResNet checkpoints hold beside the backbone: the classifier, and the
# fixed cosine bases of FcaNet, which FCAAttention computes.
_NOT_OURS = ('fc.', 'head.')
_FIXED = '.dct_layer.weight'


def _some(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


@MODELS.register_module()
class PluginResNet(ResNet):
    """A ResNet that never freezes or mistakes what it did not load.

    The arguments are those of :class:`mmdet.models.ResNet`. It differs in

    - ``frozen_stages`` and ``norm_eval``: plugins and DCN offsets stay
      trainable, their norms follow ``train()``;
    - ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)``: every
      tensor of the plain ResNet must be in the checkpoint, in its shape, and
      nothing but a classifier may be left over. New layers are named in the
      log; those that the checkpoint has are filled too.

    Raises:
        UserError: From ``init_weights``, on a checkpoint of another
            architecture, or one that cannot be read.

    Example:
        >>> self = PluginResNet(
        ...     depth=50, frozen_stages=1, plugins=[dict(
        ...         cfg=dict(type='SEAttention'), position='after_conv3')])
        >>> self.layer1[0].conv1.weight.requires_grad
        False
        >>> self.layer1[0].se.fc[0].weight.requires_grad
        True
    """

    # It says itself what was loaded, and is stricter than others.
    reports_pretrained = True

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        widest = self.base_channels * self.block.expansion
        return tuple(widest * 2**i for i in self.out_indices)

    def new_layers(self) -> dict[str, nn.Module]:
        """The layers that a plain ResNet lacks, by name."""
        found = {}
        for stage in self.res_layers:
            for i, block in enumerate(getattr(self, stage)):
                plain = {'conv1', 'conv2', 'conv3', 'relu', 'downsample'}
                plain |= {
                    getattr(block, f'norm{j}_name', '') for j in (1, 2, 3)
                }
                for name, layer in block.named_children():
                    if name in plain:
                        name = f'{name}.conv_offset'
                        layer = getattr(layer, 'conv_offset', None)
                    if layer is not None:
                        found[f'{stage}.{i}.{name}'] = layer
        return found

    def _freeze_stages(self) -> None:
        new = self.new_layers().values()
        asked = [(p, p.requires_grad) for m in new for p in m.parameters()]
        super()._freeze_stages()
        for param, requires_grad in asked:
            param.requires_grad = requires_grad

    def train(self, mode: bool = True) -> PluginResNet:
        """Train mode, but for frozen stages and, by norm_eval, old norms."""
        super().train(mode)
        for layer in self.new_layers().values():
            layer.train(mode)
        return self

    def init_weights(self) -> None:
        """Initialises, then loads the checkpoint and says what it filled."""
        cfgs = self.init_cfg or []
        cfgs = [cfgs] if isinstance(cfgs, dict) else cfgs
        pretrained = [
            c for c in cfgs if c['type'] in ('Pretrained', PretrainedInit)
        ]
        if self.is_init or not pretrained:
            self._warn_of_random_weights()
            super().init_weights()
            return
        configured = self.init_cfg
        self.init_cfg = [c for c in cfgs if c not in pretrained]
        super().init_weights()
        self.init_cfg = configured
        for cfg in pretrained:
            self._load_pretrained(cfg['checkpoint'], cfg.get('prefix'))

    def _warn_of_random_weights(self) -> None:
        held = []
        if self.frozen_stages >= 0:
            held.append(f'frozen_stages={self.frozen_stages}')
        if self.norm_eval:
            held.append('norm_eval=True')
        if held and not self.is_init:
            print_log(
                f'{type(self).__name__}: no pretrained checkpoint in '
                f'init_cfg, and {", ".join(held)} would hold layers at their '
                'initial values. Unless load_from or resume brings weights, '
                'set frozen_stages=-1 and norm_eval=False, or '
                "init_cfg=dict(type='Pretrained', checkpoint=...).",
                logger='current',
                level=logging.WARNING,
            )

    def _load_pretrained(self, source: str, prefix: str | None) -> None:
        content = CheckpointLoader.load_checkpoint(source, 'cpu')
        state, _ = strip_prefix(unwrap(content, source), source, prefix)
        own = self.state_dict()
        new = self.new_layers()

        def is_new(key: str) -> bool:
            return any(key.startswith(f'{name}.') for name in new)

        filled = {
            k: v
            for k, v in state.items()
            if k in own and v.shape == own[k].shape
        }
        misshapen = [
            f'{k} is {tuple(v.shape)}, here {tuple(own[k].shape)}'
            for k, v in state.items()
            if k in own and k not in filled
        ]
        optional = '.num_batches_tracked'
        missing = [
            k
            for k in own
            if k not in state and not is_new(k) and not k.endswith(optional)
        ]
        left = [k for k in state if k not in own]
        unbuilt = {f'layer{i}' for i in (2, 3, 4)} - set(self.res_layers)
        dropped = [
            k
            for k in left
            if k.startswith(_NOT_OURS)
            or k.endswith(_FIXED)
            or k.split('.')[0] in unbuilt
        ]
        alien = [k for k in left if k not in dropped]
        if missing or misshapen or alien:
            raise UserError(
                '\n'.join(
                    [
                        f'{source} is not a checkpoint of this '
                        f'{type(self).__name__}-{self.depth}:',
                        *_counted('missing in it', missing),
                        *_counted('of another shape', misshapen),
                        *_counted('unknown here', alien),
                    ]
                ),
                'Give one of the same depth, stem, norm and width; '
                f'torchvision://resnet{self.depth} has the default ones.',
            )
        self.load_state_dict(filled, strict=False)
        found = match(self, {k: state[k] for k in (*filled, *dropped)})
        line = describe(found, list(own), 'backbone', source)
        print_log(line, logger='current')
        if hasattr(self, '_params_init_info'):
            update_init_info(self, init_info=f'loaded from {source}')


def _counted(what: str, names: list[str]) -> list[str]:
    return [f'  {len(names)} {what}: {_some(names)}'] if names else []
