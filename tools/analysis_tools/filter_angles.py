# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Draws the angles between the filters of a model's layers.

    python tools/analysis_tools/filter_angles.py CONFIG CHECKPOINT \
        [--before CHECKPOINT] --layers 'backbone.layer[34].*conv2'

Prints each layer's mean, spread and largest cosine, and writes histograms,
of two checkpoints on top of each other with --before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmext.errors import command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help="weights; 'none' keeps the initial ones")
    add('--before', metavar='CHECKPOINT', help='weights to compare with')
    add(
        '--layers',
        nargs='+',
        default=['backbone.layer[34].*conv2'],
        help='regular expressions of full layer names '
        "(default: 'backbone.layer[34].*conv2')",
    )
    add('--out-dir', default='work_dirs/filter_angles')
    return parser.parse_args()


@command
def main() -> None:
    args = parse_args()
    from mmext.analysis import filter_angles, loading

    found = {}
    for name, checkpoint in (
        ('before', args.before),
        ('after', args.checkpoint),
    ):
        if checkpoint is not None:
            label = name if args.before else Path(checkpoint).stem
            _, model = loading.load_model(args.config, checkpoint)
            found[label] = filter_angles.model_angles(model, args.layers)
    print(filter_angles.angle_table(found))
    path = Path(args.out_dir) / 'filter_angles.png'
    print(f'wrote {filter_angles.draw_angles(found, path)}')


if __name__ == '__main__':
    main()
