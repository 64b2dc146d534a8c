# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Follows a model with ``torch.export``, for images of any size."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shape_config

from mmext.errors import UserError
from mmext.utils.text import short

#: Cells of a map with a stride of 32, in y and x, of the images that the model
#: is followed with, and of those that the program is tried with.
_FOLLOWED, _TRIED = (9, 13), (5, 6)
#: Packages whose code a message may name.
_NAMED = ('mmcv', 'mmdet', 'mmext/models', 'mmext/mmcv_ext', 'mmpretrain')


def trace(
    model: nn.Module, size: tuple[int, int] | None = None
) -> tuple[ExportedProgram, int]:
    """Returns a program of a model, and what its sizes are multiples of.

    Args:
        model: Takes uint8 (B, 3, H, W), in evaluation mode.
        size: Height and width, if the program takes no others. Default: any.

    Raises:
        UserError: The model cannot be followed.
    """
    if not hasattr(shape_config, 'backed_size_oblivious'):
        raise UserError(
            f'PyTorch {torch.__version__} cannot follow models for images of '
            'any size',
            'Install a newer one.',
        )
    model.eval()
    multiple = 1 if size else find_multiple(model)
    dims = {0: Dim.DYNAMIC}
    if size is None:
        dims |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with explained('torch.export', size is not None), torch.no_grad():
        # Without it, a map of one cell would be refused or taken for granted.
        with shape_config.patch(backed_size_oblivious=True):
            program = torch.export.export(
                model,
                (_images(2, size or _pixels(_FOLLOWED)),),
                dynamic_shapes=(dims,),
                strict=False,
            )
        # PyTorch writes into the program what it took for granted about the
        # size. ONNX has no place for it.
        program.module()(_images(3, size or _pixels(_TRIED)))
    return program, multiple


def _pixels(cells: tuple[int, int]) -> tuple[int, int]:
    return 32 * cells[0], 32 * cells[1]


def _images(batch: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, *size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def find_multiple(model: nn.Module) -> int:
    """Returns what height and width of images must be multiples of.

    Necks that concatenate maps take no others, unless the model pads.
    """
    for multiple in (1, 32, 64):
        height, width = ((160 // multiple + d) * multiple for d in (1, 3))
        with contextlib.suppress(RuntimeError), torch.no_grad():
            model(_images(1, (height, width)))
            return multiple
    return 128  # if this is wrong too, the exporter says why


@contextlib.contextmanager
def explained(package: str, fixed: bool) -> Iterator[None]:
    """Turns an exporter's exceptions into one message."""
    try:
        yield
    except Exception as error:  # of dozens of types
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if any(f'/{name}/' in frame.filename for name in _NAMED)
        ]
        where = ''
        if frames:
            last = frames[-1]
            at = max(last.filename.rfind(f'/{name}/') for name in _NAMED)
            where = f' at {last.filename[at + 1 :]}:{last.lineno}'
        other = ''
        if not fixed:
            other = ' With --size, a file for one size may be possible.'
        text = ' '.join(str(error).split())
        raise UserError(
            f'{package} cannot follow the model{where}: '
            f'{type(error).__name__}: {short(text, 200)}',
            f'Use another backbone or neck.{other} MMEXT_DEBUG=1 shows the '
            'traceback.',
        ) from error
