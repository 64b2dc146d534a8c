# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws the angles between the filters of layers.

    python tools/analysis_tools/filter_angles.py CONFIG CHECKPOINT \
        [--before init] --layers 'backbone.layer[34].*conv2'

Prints mean, spread and largest cosine of each layer, and draws histograms.
--before adds another state of the model: a checkpoint, or with "init" the
weights that the training started from (the config's pre-trained weights, and
random ones for the other layers).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import command


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help="weights; 'init' for those before training")
    add(
        '--before',
        metavar='CHECKPOINT',
        help="weights to compare with; 'init' for those before training",
    )
    add(
        '--layers',
        nargs='+',
        default=['backbone.layer[34].*conv2'],
        help='regular expressions of full layer names '
        "(default: 'backbone.layer[34].*conv2')",
    )
    add('--seed', type=int, default=0, help="of random weights of 'init'")
    add(
        '--out-dir',
        default='work_dirs/filter_angles',
        help='folder of results',
    )
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.analysis.filter_angles import (
        angle_table,
        compare_angles,
        draw_angles,
    )

    found = compare_angles(
        args.config, args.checkpoint, args.layers, args.before, args.seed
    )
    print(angle_table(found).markdown())
    path = Path(args.out_dir) / 'filter_angles.png'
    print(f'wrote {draw_angles(found, path)}')


if __name__ == '__main__':
    main()
