# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Finds ``mmcv._ext`` in mmext if no other module of that name exists.

The finder is the last one on ``sys.meta_path``: Python asks it only after all
others have failed, so a compiled ``mmcv._ext`` is always preferred, even one
that is built later. The finder does not import ``mmext``, because it must
also work in the middle of an import of mmcv.

``python -m mmext.mmcv_ext --install`` copies this file into an environment,
where a ``.pth`` file imports it at each start of Python. It therefore needs
the standard library only, takes next to no time, and does nothing if mmext
has been uninstalled.
"""

import os
import sys

NAME = 'mmcv._ext'


class MMCVExtFinder:
    """Finds the package of mmext that implements ``mmcv._ext``."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        """Returns the spec of ``mmcv._ext``, and None for other modules."""
        if fullname != NAME:
            return None
        from importlib.util import find_spec, spec_from_file_location

        package = find_spec('mmext')
        if package is None:
            return None
        for folder in package.submodule_search_locations or ():
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
