# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Registers StarNet, DWNet, gMLP and StepNet in timm, to pre-train them there.

``import mmext.timm_models`` adds ``mmext_starnet_s1``, ``mmext_stepnet50``
and so on to ``timm.list_models()``. timm's own StarNet and gMLP keep their
names. A checkpoint of timm's train script loads in a detector with
``init_cfg=dict(type='Pretrained', checkpoint=...)``: its backbone has the
prefix ``backbone.``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from mmengine.logging import MMLogger
from timm.layers import ClassifierHead
from timm.models import (
    FeatureInfo,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
)
from torch import Tensor, nn

from mmext.models import GMLP, DWNet, StarNet, StepNetResNet

Build = Callable[..., nn.Module]
KINDS = (None, 'homogeneous', 'inhomogeneous')
#: Name in timm -> what builds the backbone.
BACKBONES: dict[str, Build] = {
    **{
        f'mmext_{cls.__name__.lower()}_{arch}': partial(cls, arch)
        for cls in (StarNet, GMLP)
        for arch in cls.arch_settings
    },
    **{
        '_'.join(['mmext_dwnet', arch, *filter(None, [kind])]): partial(
            DWNet, arch, kind
        )
        for arch, kind in product(DWNet.arch_settings, KINDS)
    },
    **{
        f'mmext_stepnet{depth}': partial(StepNetResNet, depth, norm_eval=False)
        for depth in StepNetResNet.arch_settings
    },
}
HALF = (0.5, 0.5, 0.5)
default_cfgs = generate_default_cfgs(
    {
        name: {
            'input_size': (3, 224, 224),
            'pool_size': (14, 14) if 'gmlp' in name else (7, 7),
            'num_classes': 1000,
            'classifier': 'head.fc',
            **({'mean': HALF, 'std': HALF} if 'gmlp' in name else {}),
        }
        for name in BACKBONES
    }
)


class TimmClassifier(nn.Module):
    """The backbone that ``build`` makes, with timm's classifier.

    The other arguments and the methods are those of every model of timm;
    ``drop_path_rate`` is by default that of the backbone.
    """

    def __init__(
        self,
        build: Build,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
    ) -> None:
        super().__init__()
        build = partial(build, in_channels=in_chans)
        if drop_path_rate is not None:
            build = partial(build, drop_path_rate=drop_path_rate)
        self.build = build
        if build.func is not StepNetResNet:
            build = partial(build, final_norm=True)
        self.backbone = build(out_indices=-1)
        _initialise(self.backbone)
        self.in_chans, self.num_classes = in_chans, num_classes
        self.num_features = self.backbone.out_channels[-1]
        self.head_hidden_size = self.num_features
        self.head = ClassifierHead(
            self.num_features, num_classes, global_pool, drop_rate
        )

    def forward_features(self, x: Tensor) -> Tensor:
        return self.backbone(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None
    ) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for module in self.backbone.modules():
            if hasattr(module, 'with_cp'):
                module.with_cp = enable

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        depths, last = self.backbone.layer_depths()
        return lambda name: depths.get(name.removeprefix('backbone.'), last)


def _initialise(backbone: nn.Module) -> None:
    if next(backbone.parameters()).is_meta:  # has no values
        return
    logger = MMLogger.get_current_instance()  # prints each tensor
    logger.disabled = True
    try:
        backbone.init_weights()
    finally:
        logger.disabled = False


def _features(
    model: TimmClassifier, out_indices: int | Sequence[int] | None
) -> nn.Module:
    """Returns the backbone with its levels, for ``features_only=True``."""
    given = {} if out_indices is None else {'out_indices': out_indices}
    backbone = model.build(**given)
    _initialise(backbone)
    backbone.load_state_dict(model.backbone.state_dict(), strict=False)
    indices = backbone.out_indices
    strides = [4 * 2**i for i in indices]
    if not isinstance(backbone, StepNetResNet):
        strides = backbone.strides
    rows = zip(indices, backbone.out_channels, strides, strict=True)
    info = [
        {'index': i, 'num_chs': width, 'reduction': stride, 'module': f'{i}'}
        for i, width, stride in rows
    ]
    backbone.feature_info = FeatureInfo(info, tuple(range(len(info))))
    return backbone


def _create(name: str, **options: Any) -> nn.Module:
    features = {'out_indices': None, 'feature_cls': _features}
    build = partial(TimmClassifier, BACKBONES[name])
    return build_model_with_cfg(build, name, feature_cfg=features, **options)


for _name in BACKBONES:
    _entry = partial(_create, _name)
    _entry.__name__, _entry.__module__ = _name, __name__
    register_model(_entry)
