# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Trains with and without orthogonality terms.

    python tools/analysis_tools/orthogonality_effect.py \
        configs/theory/orthogonality_resnet_digits.py

Prints angles and accuracy over seeds, and draws histograms of the first seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmext.errors import command
from mmext.utils.options import add_cfg_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='configs/theory/orthogonality_resnet_digits.py')
    add(
        '--out-dir',
        default='work_dirs/orthogonality',
        help='folder of results',
    )
    add_cfg_options(parser, 'epochs=2 seeds=[0]')
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.analysis.filter_angles import draw_angles
    from mmext.analysis.orthogonality_effect import (
        outcome_table,
        run_experiment,
    )
    from mmext.utils.config import load_config, parse_options

    cfg = load_config(args.config)
    cfg.merge_from_dict(parse_options(args.cfg_options or ()))
    results = run_experiment(cfg, partial(print, flush=True))
    print(outcome_table(results).markdown())
    shown = {name: outcomes[0].angles for name, outcomes in results.items()}
    path = Path(args.out_dir) / 'angles.png'
    print(f'wrote {draw_angles(shown, path)}')


if __name__ == '__main__':
    main()
