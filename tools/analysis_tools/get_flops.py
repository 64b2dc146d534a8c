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
    parser.add_argument(
        '--uncounted',
        action='store_true',
        help='list all operators that are not counted',
    )
    args = parser.parse_args(argv)
    from rich.console import Console
    from rich.progress import track

    from mmext.evaluation.cost.complexity import config_complexity
    from mmext.evaluation.cost.metafile import write_cost
    from mmext.evaluation.report.table import Table
    from mmext.evaluation.report.tables import cost_cells, uncounted_note
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
    rows, notes, uncounted = [], [], set()
    for config in track(configs, 'Counting', transient=True):
        cost = config_complexity(load_config(config))
        size = f'{cost.shape[1]}x{cost.shape[0]}'
        rows.append([config.stem, *cost_cells(cost), size])
        uncounted |= cost.uncounted.keys()
        if cost.note:
            notes.append(f'{config.stem}: FLOPs not counted ({cost.note}).')
        if args.metafile:
            write_cost(config.resolve(), cost, ROOT)
    names = sorted(uncounted)
    if names and args.uncounted:
        notes.append(f'Not counted in FLOPs: {", ".join(names)}.')
    elif names:
        notes += [uncounted_note(names), 'All of them: --uncounted.']
    header = ['config', 'params', 'FLOPs', 'at']
    Table(header, rows, notes=notes).print(Console())


if __name__ == '__main__':
    main()
