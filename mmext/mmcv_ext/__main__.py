# Licensed under the Apache License, Version 2.0. See LICENSE.
"""``python -m mmext.mmcv_ext``: shows which ops mmcv uses, and for whom."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from mmext.mmcv_ext import permanent
from mmext.mmcv_ext.finder import NAME


def report() -> str:
    """Describes where mmcv's ops come from and whether that is permanent."""
    spec = find_spec(NAME)
    if spec.submodule_search_locations is None:
        lines = [f'{NAME}: compiled, {spec.origin}']
    else:
        from mmcv import _ext

        ops = [n for n in _ext.__all__ if not n.startswith('get_')]
        lines = [
            f'{NAME}: mmext, {spec.origin}',
            f'functions implemented: {", ".join(ops)}',
        ]
    files = ', '.join(map(str, permanent.files()))
    lines.append(f'without importing mmext: {permanent.state()} ({files})')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog='python -m mmext.mmcv_ext',
        description='Shows which implementation of mmcv.ops is used.',
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
    args = parser.parse_args(argv)
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
