# Licensed under the Apache License, Version 2.0. See LICENSE.
"""mmdet's ResNet with new layers that a plain ResNet does not have.

A ResNet checkpoint fills the convolutions and norms; attention plugins, step
adaptors and the offsets of deformable convolutions are new. mmdet's ResNet
freezes complete stages (``frozen_stages``) and every batch norm
(``norm_eval``), new layers included, at values that were never trained, and
loads a checkpoint of another architecture with no more than a warning.
"""

from __future__ import annotations

from mmdet.models.backbones.resnet import ResNet
from mmengine.registry import MODELS
from torch import nn

from mmext.checkpoints.released import StrictInit
from mmext.errors import UserError
from mmext.models.backbones.base_backbone import depths_of
from mmext.utils.text import some

# What ResNet checkpoints have beside the backbone: the classifier, and the
# fixed cosine bases of FcaNet, which FCAAttention computes.
_CLASSIFIER = ('fc.', 'head.')
_FIXED = '.dct_layer.weight'


@MODELS.register_module()
class PluginResNet(StrictInit, ResNet):
    """A ResNet that freezes only what a checkpoint filled.

    The arguments are those of :class:`mmdet.models.ResNet`. It differs in

    - ``frozen_stages`` and ``norm_eval``: plugins and DCN offsets stay
      trainable, their norms follow ``train()``;
    - ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)``: every
      tensor of the plain ResNet must be in the checkpoint, in its shape, and
      nothing but a classifier may be left over. New layers are named in the
      log; those that the checkpoint has are filled too.

    Raises:
        UserError: From ``init_weights``, if the checkpoint is of another
            architecture or cannot be read.

    Example:
        >>> self = PluginResNet(
        ...     depth=50, frozen_stages=1, plugins=[dict(
        ...         cfg=dict(type='SEAttention'), position='after_conv3')])
        >>> self.layer1[0].conv1.weight.requires_grad
        False
        >>> self.layer1[0].se.fc[0].weight.requires_grad
        True
    """

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        widest = self.base_channels * self.block.expansion
        return tuple(widest * 2**i for i in self.out_indices)

    @property
    def weights_hint(self) -> str:
        """What a user should check if a checkpoint does not fit."""
        return (
            f'Give one of the same depth ({self.depth}), stem, norm and width;'
            f' torchvision://resnet{self.depth} has the default ones'
        )

    def released_key(self, key: str) -> str | None:
        """Returns a checkpoint's key, or None if nothing here takes it."""
        unbuilt = {f'layer{i}' for i in (2, 3, 4)} - set(self.res_layers)
        if (
            key.startswith(_CLASSIFIER)
            or key.endswith(_FIXED)
            or key.split('.')[0] in unbuilt
        ):
            return None
        return key

    def accept_missing(self, missing: list[str]) -> None:
        """Raises ``UserError`` if missing tensors would be frozen."""
        if missing and (self.frozen_stages >= 0 or self.norm_eval):
            raise UserError(
                f'{len(missing)} tensors are not in the checkpoint '
                f'({some(missing, 3)}), and frozen_stages='
                f'{self.frozen_stages} with norm_eval={self.norm_eval} may '
                'freeze them at random values; nothing was loaded.',
                'Set frozen_stages=-1 and norm_eval=False.',
            )

    def new_layers(self) -> dict[str, nn.Module]:
        """Returns the layers that a plain ResNet does not have, by name."""
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

    def layer_depths(self) -> tuple[dict[str, int], int]:
        """Returns the depth of each parameter, and that of what follows."""
        layers: list = [('conv1.', 'stem.', f'{self.norm1_name}.')]
        for stage in self.res_layers:
            layers += [
                f'{stage}.{i}.' for i in range(len(self.get_submodule(stage)))
            ]
        return depths_of(self, layers)

    def _freeze_stages(self) -> None:
        new = self.new_layers().values()
        before = [(p, p.requires_grad) for m in new for p in m.parameters()]
        super()._freeze_stages()
        for param, requires_grad in before:
            param.requires_grad = requires_grad

    def train(self, mode: bool = True) -> PluginResNet:
        """Sets the mode, except for frozen stages and norms of the ResNet."""
        super().train(mode)
        for layer in self.new_layers().values():
            layer.train(mode)
        return self
