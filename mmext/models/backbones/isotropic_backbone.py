# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Base class of backbones that work at one resolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from mmext.models.backbones.base_backbone import BaseBackbone


class IsotropicBackbone(BaseBackbone):
    """Runs a patch embedding and a stack of blocks on (B, H, W, C) tokens.

    A subclass calls :meth:`set_blocks`, builds ``stem`` (any module with a
    (B, C, H, W) output of stride ``patch_size``), ``blocks`` and ``norm``
    (or None), and ends its ``__init__`` with ``self.train()``.
    """

    stem: nn.Module
    blocks: nn.ModuleList
    norm: nn.Module | None

    def set_blocks(
        self,
        out_indices: int | tuple[int, ...],
        depth: int,
        embed_dims: int,
        patch_size: int,
        final_norm: bool,
    ) -> tuple[int, bool]:
        """Returns how many blocks to build, and whether to build ``norm``."""
        self.patch_size = patch_size
        built = self.set_stages(
            out_indices,
            [embed_dims] * depth,
            [patch_size] * depth,
            stages='blocks',
        )
        has_norm = final_norm and built == depth
        if not has_norm:
            self.unbuilt += ('norm.',)
        return built, has_norm

    def final(self, x: Tensor) -> Tensor:
        """Returns the last output from the last tokens (B, H, W, C)."""
        return self.norm(x).permute(0, 3, 1, 2)

    def levels(self, x: Tensor) -> list[Tensor]:
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
        return outs
