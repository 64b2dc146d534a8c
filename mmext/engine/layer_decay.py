# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Learning rates that decay from the head to the first layer.

From BEiT (arXiv 2106.08254, appendix H); ViTDet trains detectors with it
(arXiv 2203.16527, appendix A.2).
"""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmext.errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Multiplies learning rates by ``layer_decay_rate ** (last - depth)``.

    ``depth`` is that of ``layer_depths`` of the backbone: 0 in the stem, i + 1
    in block i, and ``last`` in necks, heads and final norms. The depths of
    :class:`TimmBackbone` are timm's groups (``group_matcher``), which count a
    final norm to the last block. The log has a table of the groups.

    Args:
        optim_wrapper_cfg: As for ``DefaultOptimWrapperConstructor``.
        paramwise_cfg: Its options, all of which apply, and
            ``layer_decay_rate``, above 0 and at most 1.

    Raises:
        UserError: If the rate is not; if the backbone has no such method.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get('layer_decay_rate')
        known = isinstance(rate, int | float) and 0 < rate <= 1
        if not known or self.base_lr is None:
            raise UserError(
                f'{type(self).__name__} got layer_decay_rate={rate!r} and '
                f'lr={self.base_lr}',
                '--cfg-options optim_wrapper.paramwise_cfg.layer_decay_rate='
                '0.7: above 0 and at most 1; the optimizer needs an lr.',
            )

    @staticmethod
    def check_model(model: nn.Module) -> None:
        """Raises `UserError` if the backbone does not say its layers."""
        backbone = getattr(model, 'backbone', None)
        if not hasattr(backbone, 'layer_depths'):
            raise UserError(
                f'model.backbone: {type(backbone).__name__} has no '
                'layer_depths, so that learning rates cannot decay by layers',
                'Use a backbone of mmext or TimmBackbone, or remove '
                'optim_wrapper.constructor.',
            )
        backbone.layer_depths()

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        **kw: Any,
    ) -> None:
        """Adds one group for each set of equal settings to ``params``."""
        if prefix:  # MMEngine calls this for each child
            super().add_params(params, module, prefix, **kw)
            return
        self.check_model(module)
        found: list[dict] = []
        super().add_params(found, module, prefix, **kw)
        depths, last = module.backbone.layer_depths()
        depth_of = {
            param: depths.get(name, last)
            for name, param in module.backbone.named_parameters()
        }
        groups: dict[tuple, dict] = {}
        for group in found:
            (param,) = group.pop('params')
            depth = depth_of.get(param, last)
            scale = self.paramwise_cfg['layer_decay_rate'] ** (last - depth)
            group['lr'] = group.get('lr', self.base_lr) * scale
            key = (depth, *sorted(group.items(), key=str))
            groups.setdefault(key, {**group, 'params': []})
            groups[key]['params'].append(param)
        ordered = sorted(groups.items(), key=str)
        ordered.sort(key=lambda item: item[0][0])
        print_log(self._table(ordered), logger='current')
        params += [group for _, group in ordered]

    def _table(self, groups: list[tuple[tuple, dict]]) -> str:
        lines = ['Learning rates by layers:']
        lines.append(' depth         lr  weight decay  tensors  parameters')
        for (depth, *_), group in groups:
            decay = group.get('weight_decay', self.base_wd)
            params = group['params']
            lines.append(
                f'{depth:6} {group["lr"]:10.3g} {decay or 0:13g} '
                f'{len(params):8} {sum(p.numel() for p in params):11,}'
            )
        return '\n'.join(lines)
