# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Answers ``import mmcv._ext`` where no compiled module of that name exists.

The finder stands last on ``sys.meta_path``: Python asks it only after every
other finder has failed, so a compiled ``mmcv._ext`` always wins, also one
that is built later. It finds the ops as a package of source files and never
imports ``mmext``, whose ``__init__`` imports MMDetection and hence mmcv.ops:
that would be a cycle when mmcv.ops is what asks.

``python -m mmext.mmcv_ext --install`` copies this file into an environment
and has a ``.pth`` file import it at each start of Python. It must therefore
need nothing but the standard library, cost next to nothing, and stay silent
when mmext is uninstalled.
"""

import os
import sys

NAME = 'mmcv._ext'


class MMCVExtFinder:
    """Finds the stand-in for mmcv's compiled ops in an installed mmext."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        """The spec of ``mmcv._ext``; None for anything else."""
        if fullname != NAME:
            return None
        from importlib.util import find_spec, spec_from_file_location

        plugin = find_spec('mmext')
        for folder in (plugin and plugin.submodule_search_locations) or ():
            ops = os.path.join(folder, 'mmcv_ext', 'ops')
            source = os.path.join(ops, '__init__.py')
            if os.path.isfile(source):
                return spec_from_file_location(
                    NAME, source, submodule_search_locations=[ops]
                )
        return None


def register():
    """Puts the finder last on ``sys.meta_path``, once per process."""
    known = {getattr(f, '__name__', None) for f in sys.meta_path}
    if MMCVExtFinder.__name__ not in known:
        sys.meta_path.append(MMCVExtFinder)
