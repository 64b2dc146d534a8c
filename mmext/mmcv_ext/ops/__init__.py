# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The functions of ``mmcv._ext``, on torchvision's ops and PyTorch.

Imported under the name ``mmcv._ext``; not a part of ``mmext`` to import from.
Names, argument order and in-place results are those that ``mmcv.ops`` asks
of the compiled module. Any other name is answered by a function that raises
when it is called: ``mmcv.ops`` asserts all its functions at import, and most
are never used.
"""

from collections.abc import Callable

from .info import get_compiler_version, get_compiling_cuda_version
from .nms import nms
from .roi_align import roi_align_backward, roi_align_forward

__all__ = [
    'get_compiler_version',
    'get_compiling_cuda_version',
    'nms',
    'roi_align_backward',
    'roi_align_forward',
]


def __getattr__(name: str) -> Callable:
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            f"mmcv's op {name!r} is not among those that mmext implements "
            'without a compiler. Build mmcv with its ops: `pip uninstall -y '
            'onedl-mmcv && pip install --no-build-isolation --no-cache-dir '
            'onedl-mmcv` (or mmcv-lite and mmcv==2.1.0); it needs a C++ '
            'compiler, for a GPU also the CUDA toolkit, and some 15 minutes. '
            'mmext then uses the compiled ops by itself.'
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
