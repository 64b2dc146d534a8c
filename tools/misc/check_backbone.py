# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures a backbone and saves a passport of it.

    python tools/misc/check_backbone.py CONFIG              # model.backbone
    python tools/misc/check_backbone.py tinynet.py          # a class of yours
    python tools/misc/check_backbone.py package.module:Class

Measures levels, channels and strides; gradients and unused parameters; train
and eval; batch invariance; determinism; AMP; channels-last; odd sizes;
checkpointing; torch.export; two processes; parameters, FLOPs, latency and
memory. Random weights are used. The exit status is 1 if a property fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.options import add_cfg_options


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add('source', help='a config, or a Python file or module')
    add(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='of images, in pixels; default: 128 192, or the only ones',
    )
    add('--device', help='default: the first GPU, or the CPU')
    add(
        '--quick',
        action='store_true',
        help='leave out torch.export, two processes and the cost',
    )
    add(
        '--out',
        metavar='DIR',
        default='work_dirs/passports',
        help='folder of NAME.json and NAME.md; default: %(default)s',
    )
    add_cfg_options(
        parser, 'arch=s1 model.backbone.depth=50', 'the config or arguments'
    )
    args = parser.parse_args(argv)

    import mmext.models  # noqa: F401  registers the backbones
    from mmext.checks.backbone.passport import make_passport

    passport = make_passport(
        args.source,
        args.cfg_options or (),
        size=args.size and tuple(args.size),
        device=args.device,
        quick=args.quick,
        log=lambda step: print(f'Measuring: {step}', file=sys.stderr),
    )
    print(passport.text())
    paths = passport.save(args.out)
    print(f'\nSaved as {paths[0]} and {paths[1].name}')
    if passport.problems:
        sys.exit(1)


if __name__ == '__main__':
    main()
