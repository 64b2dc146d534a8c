# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Stands in for mmcv's compiled ops where they are absent.

mmcv from PyPI comes without ``mmcv._ext``, the compiled module that all of
``mmcv.ops`` is built on. :func:`install` lets Python find the package
``mmext/mmcv_ext/ops`` under that name, so ``mmcv.ops`` and every MMDetection
model that needs only the ops implemented there work without a compiler, on
CPU and CUDA. A compiled ``mmcv._ext``, where there is one, is used instead.
"""

from mmext.mmcv_ext.finder import register
from mmext.mmcv_ext.stubs import mend

__all__ = ['install']


def install() -> None:
    """Makes ``mmcv._ext`` importable; harmless when it already is.

    Raises:
        ImportError: If a module imported earlier has built on the absence of
            the ops in a way that cannot be mended.
    """
    register()
    mend()
