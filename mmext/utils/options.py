# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Command line options that several tools share."""

from __future__ import annotations

import os
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path


def add_cfg_options(
    parser: ArgumentParser,
    example: str = 'a.b=1 c=1,2 d="[(a,b)]" (+a.b=1: a new key)',
    changed: str = 'the config',
) -> None:
    """Adds ``--cfg-options KEY=VALUE ...``, a list of strings or None.

    :func:`mmext.utils.config.parse_options` parses the values. The help shows
    the ``example``, and what the options change (``changed``).
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help=f'change {changed}: {example}',
    )


def add_trust(parser: ArgumentParser) -> None:
    """Adds ``--trust-checkpoint SHA256``, a list."""
    parser.add_argument(
        '--trust-checkpoint',
        action='append',
        default=[],
        metavar='SHA256',
        help='unpickle anything in the file with this hash, which can run any '
        'code',
    )


def add_sha256(parser: ArgumentParser) -> None:
    """Adds ``--sha256 DIGITS``."""
    parser.add_argument(
        '--sha256', help='hash of the checkpoint, its first 8 digits or more'
    )


def add_run_options(parser: ArgumentParser) -> None:
    """Adds the options that training and testing share."""
    parser.add_argument(
        '--data',
        metavar='DIR',
        help="a folder of COCO, YOLO or VOC instead of the config's data",
    )
    parser.add_argument(
        '--classes', nargs='+', help='categories of --data; default: all'
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='the launcher that started the processes',
    )
    add_trust(parser)
    parser.add_argument(
        '--skip-data-checks',
        action='store_true',
        help='do not check annotations and images before the run',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, help=SUPPRESS
    )


def add_convert_options(parser: ArgumentParser, root: str) -> None:
    """Adds the options of all converters; ``root`` describes the folder."""
    add = parser.add_argument
    add('root', type=Path, help=root)
    add('--out', type=Path, help='folder to write to; default: root')
    add('--classes', nargs='+', help='classes to keep; default: all')
    add(
        '--val-part',
        type=float,
        default=0.2,
        help='fraction held out if there is no validation split',
    )


def add_voc_options(parser: ArgumentParser) -> None:
    """Adds the options for VOC's format."""
    add = parser.add_argument
    add(
        '--zero-based',
        action='store_true',
        help='corners count from 0 (labelImg) and not from 1 (VOC)',
    )
    add('--annotations', metavar='DIR', help='folder of XML files in root')
    add('--images', metavar='DIR', help='folder of images in root')


def parse_run(
    parser: ArgumentParser, argv: Sequence[str] | None = None
) -> Namespace:
    """Parses, and sets ``LOCAL_RANK`` to a launcher's ``--local-rank``.

    MMEngine reads the variable. ``torchrun`` sets it; older launchers of
    PyTorch give the option.
    """
    args = parser.parse_args(argv)
    if args.classes is not None and args.data is None:
        parser.error('--classes chooses categories of --data DIR')
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
