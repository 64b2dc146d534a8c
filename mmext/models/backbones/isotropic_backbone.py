# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What networks of one resolution share: patches in, a map of tokens out."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from mmext.models.arguments import resolve_indices
from mmext.models.backbones.base_backbone import BaseBackbone


class IsotropicBackbone(BaseBackbone):
    """Runs a patch embedding and a stack of blocks on (B, H, W, C) tokens.

    A subclass builds ``stem`` (any module with (B, C, H, W) output of stride
    ``patch_size``), ``blocks`` and ``norm`` (None for none) after calling
    :meth:`set_outputs`, and ends its ``__init__`` with ``self.train()``.
    """

    stem: nn.Module
    blocks: nn.ModuleList
    norm: nn.Module | None

    def set_outputs(
        self,
        out_indices: int | tuple[int, ...],
        depth: int,
        embed_dims: int,
        patch_size: int,
        final_norm: bool,
    ) -> bool:
        """Notes what is returned; whether the final norm is part of it."""
        self.patch_size = patch_size
        self.out_indices = resolve_indices(out_indices, depth)
        self.out_channels = (embed_dims,) * len(self.out_indices)
        self.strides = (patch_size,) * len(self.out_indices)
        num_blocks = self.out_indices[-1] + 1
        self.freezable = ['stem'] + [f'blocks.{i}' for i in range(num_blocks)]
        self.unbuilt += tuple(f'blocks.{i}.' for i in range(num_blocks, depth))
        has_norm = final_norm and num_blocks == depth
        if not has_norm:
            self.unbuilt += ('norm.',)
        return has_norm

    def final(self, x: Tensor) -> Tensor:
        """Last tokens (B, H, W, C) to the last output."""
        return self.norm(x).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, in_channels, H, W) to a map for each of out_indices."""
        self.check_input(x)
        # Zeros at the right and below, so that no pixel is lost.
        bottom, right = (-n % self.patch_size for n in x.shape[2:])
        x = self.stem(pad(x, (0, right, 0, bottom)))
        x = x.permute(0, 2, 3, 1).contiguous()
        outs = []
        for i, block in enumerate(self.blocks):
            x = self.run_block(block, x)
            if i in self.out_indices:
                outs.append(x.permute(0, 3, 1, 2))
        if self.norm is not None:
            outs[-1] = self.final(x)
        return tuple(outs)
