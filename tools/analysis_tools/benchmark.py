# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the speed and memory of models, or of loaders.

python tools/analysis_tools/benchmark.py configs/a.py configs/b.py
python tools/analysis_tools/benchmark.py configs/a.py --loader
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('configs', nargs='+', help='config files')
    add(
        '--batch',
        type=int,
        nargs='+',
        default=[1, 16],
        help='batch sizes (default: 1 16)',
    )
    add(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='pixels of the images (default: as the config tests)',
    )
    add('--repeats', type=int, default=20, help='timed passes (default: 20)')
    add('--device', help='cpu or cuda:1, say (default: the first GPU, if any)')
    add(
        '--loader',
        action='store_true',
        help='whether the training images are loaded as fast as the model '
        'takes them',
    )
    args = parser.parse_args(argv)
    if args.loader:
        loaders(args.configs)
        return
    from mmext.evaluation.cost.latency import config_latency
    from mmext.evaluation.report.table import Table
    from mmext.utils.config import load_config

    shape = tuple(args.shape) if args.shape else None
    rows, notes = [], set()
    for path in args.configs:
        cfg = load_config(path)
        for found in config_latency(
            cfg, args.batch, shape, args.repeats, args.device
        ):
            peak = found.peak_bytes
            rows.append(
                [
                    path,
                    str(found.batch),
                    f'{1e3 * found.seconds:.1f} ms',
                    f'{found.images_per_second:.2f}',
                    f'{peak / 2**20:.0f} MiB' if peak else '-',
                ]
            )
            notes.add(found.device)
    header = ['config', 'batch', 'latency', 'images/s', 'peak memory']
    print(Table(header, rows, notes=sorted(notes)).text())


def loaders(configs: Sequence[str]) -> None:
    """Prints a verdict for each config."""
    from mmext.engine.loader_speed import measure_loader
    from mmext.utils.config import load_config

    for path in configs:
        speed = measure_loader(load_config(path))
        print(f'{path}: {speed}' if len(configs) > 1 else speed)


if __name__ == '__main__':
    main()
