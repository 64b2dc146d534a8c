# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Compares star with sum networks on digits.

python tools/analysis_tools/star_vs_sum.py \
    configs/theory/demonet_star-vs-sum_digits.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from mmext.errors import command
from mmext.utils.options import add_cfg_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='configs/theory/demonet_star-vs-sum_digits.py')
    add_cfg_options(parser, 'epochs=2 backbone.depth=2')
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from mmext.analysis.stars import result_table, run_experiment
    from mmext.utils.config import load_config, parse_options

    cfg = load_config(args.config)
    cfg.merge_from_dict(parse_options(args.cfg_options or ()))
    results = run_experiment(cfg, partial(print, flush=True))
    print(result_table(results).markdown())


if __name__ == '__main__':
    main()
