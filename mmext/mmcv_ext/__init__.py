# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Implements mmcv's ops where mmcv was installed without compiled ones.

mmcv from PyPI does not contain ``mmcv._ext``, the compiled module that
``mmcv.ops`` is built on. :func:`install` lets Python find the package
``mmext/mmcv_ext/ops`` under that name, so ``mmcv.ops``, and every MMDetection
model that needs only the ops implemented there, works without a compiler, on
CPU and CUDA. If mmcv has a compiled ``_ext``, Python uses it instead.
"""

from mmext.mmcv_ext.finder import register
from mmext.mmcv_ext.stubs import replace_stubs

__all__ = ['install']


def install() -> None:
    """Makes ``mmcv._ext`` importable. Repeated calls do nothing.

    Raises `ImportError` if a class was already derived from a stub.
    """
    register()
    replace_stubs()
