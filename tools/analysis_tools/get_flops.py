# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Parameters and multiply-adds of the models of configs.

python tools/analysis_tools/get_flops.py configs/starnet
python tools/analysis_tools/get_flops.py configs/starnet --metafile
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmext  # noqa: F401
from mmext.errors import UserError, command
from mmext.evaluation.cost import metafile

ROOT = Path(__file__).resolve().parents[2]


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('configs', nargs='+', type=Path, help='or folders')
    parser.add_argument(
        '--metafile',
        action='store_true',
        help="write into the metafile.yml of each config's folder",
    )
    args = parser.parse_args()
    table = Table('config', 'params (M)', 'FLOPs (G)', 'at', 'not counted')
    for config in track(_expand(args.configs), 'Counting', transient=True):
        cost = metafile.measure(config)
        table.add_row(
            config.stem,
            f'{cost.params / 1e6:.2f}',
            cost.note if cost.flops is None else f'{cost.flops / 1e9:.2f}',
            f'{cost.shape[1]}x{cost.shape[0]}',
            ', '.join(cost.uncounted) or '-',
        )
        if args.metafile:
            folder = config.resolve().parent
            content = metafile.read_metafile(folder)
            entry = metafile.entry_of(content, config.resolve(), ROOT)
            metafile.update_entry(entry, cost)
            metafile.write_metafile(folder, content)
    Console().print(table)


def _expand(paths: list[Path]) -> list[Path]:
    configs = []
    for path in paths:
        found = metafile.leaf_configs(path) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise UserError(f'{path}: no config there.', 'Name a .py file.')
        configs += found
    return configs


if __name__ == '__main__':
    main()
