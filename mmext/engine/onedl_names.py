# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Lets ``mmseg::`` name a config base when OneDL's build is installed.

MMEngine looks for the *distribution* `mmsegmentation`; OneDL's is named
`onedl-mmsegmentation`, though the module is `mmseg` in both.
"""

from importlib.util import find_spec

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed


def register() -> None:
    """Points a scope at its module where its distribution has another name."""
    for module, package in MODULE2PACKAGE.items():
        if (
            module != package
            and find_spec(module) is not None
            and not is_installed(package)
        ):
            MODULE2PACKAGE[module] = module
