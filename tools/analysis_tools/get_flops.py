# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Counts parameters and FLOPs of configs.

python tools/analysis_tools/get_flops.py configs/starnet
python tools/analysis_tools/get_flops.py configs/starnet --metafile
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmext.errors import UserError, command

ROOT = Path(__file__).resolve().parents[2]


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('configs', nargs='+', type=Path, help='or folders')
    parser.add_argument(
        '--metafile',
        action='store_true',
        help="write into the metafile.yml of each config's folder",
    )
    args = parser.parse_args(argv)
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from mmext.evaluation.cost.complexity import config_complexity
    from mmext.evaluation.cost.metafile import write_cost
    from mmext.utils.config import load_config

    configs = []
    for path in args.configs:
        found = [path]
        if path.is_dir():
            files = sorted(path.rglob('*.py'))
            found = [p for p in files if '_base_' not in p.parts]
        if not found or not found[0].is_file():
            raise UserError(
                f'there is no config at {path}', 'Name a .py file.'
            )
        configs += found
    table = Table('config', 'params (M)', 'FLOPs (G)', 'at', 'not counted')
    for config in track(configs, 'Counting', transient=True):
        cost = config_complexity(load_config(config))
        table.add_row(
            config.stem,
            f'{cost.params / 1e6:.2f}',
            cost.note if cost.flops is None else f'{cost.flops / 1e9:.2f}',
            f'{cost.shape[1]}x{cost.shape[0]}',
            ', '.join(cost.uncounted) or '-',
        )
        if args.metafile:
            write_cost(config.resolve(), cost, ROOT)
    Console().print(table)


if __name__ == '__main__':
    main()
