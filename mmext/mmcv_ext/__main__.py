# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``python -m mmext.mmcv_ext``: which ops are in use, and for whom."""

import argparse
import sys
from importlib.util import find_spec

from mmext.mmcv_ext import permanent
from mmext.mmcv_ext.finder import NAME


def report() -> str:
    """Where mmcv's ops come from and whether that is permanent."""
    spec = find_spec(NAME)
    lines = []
    if spec.submodule_search_locations is None:
        lines.append(f'{NAME}: compiled, {spec.origin}')
    else:
        from mmcv import _ext

        ops = [n for n in _ext.__all__ if not n.startswith('get_')]
        lines += [
            f'{NAME}: mmext, {spec.origin}',
            f'functions implemented: {", ".join(ops)}',
        ]
    permanent_files = ', '.join(str(path) for path in permanent.files())
    lines.append(
        f'without importing mmext: {permanent.state()} ({permanent_files})'
    )
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m mmext.mmcv_ext',
        description='Shows which implementation of mmcv.ops is in use.',
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        '--install',
        action='store_true',
        help='let this environment use mmcv.ops without importing mmext',
    )
    group.add_argument(
        '--uninstall', action='store_true', help='undo --install'
    )
    args = parser.parse_args()
    try:
        if args.install:
            permanent.install()
        elif args.uninstall:
            permanent.uninstall()
    except OSError as error:
        sys.exit(
            f'Cannot change {error.filename}: {error.strerror}. Run this as '
            'the owner of the environment, or import mmext in your code.'
        )
    print(report())


if __name__ == '__main__':
    main()
