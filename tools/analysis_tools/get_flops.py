# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Count parameters and multiply-adds of the models of configs.

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

    from mmext.evaluation.cost import metafile

    configs = []
    for path in args.configs:
        found = metafile.leaf_configs(path) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise UserError(
                f'there is no config at {path}', 'Name a .py file.'
            )
        configs += found
    table = Table('config', 'params (M)', 'FLOPs (G)', 'at', 'not counted')
    for config in track(configs, 'Counting', transient=True):
        cost = metafile.measure(config)
        table.add_row(
            config.stem,
            f'{cost.params / 1e6:.2f}',
            cost.note if cost.flops is None else f'{cost.flops / 1e9:.2f}',
            f'{cost.shape[1]}x{cost.shape[0]}',
            ', '.join(cost.uncounted) or '-',
        )
        if args.metafile:
            metafile.write_cost(config.resolve(), cost, ROOT)
    Console().print(table)


if __name__ == '__main__':
    main()
