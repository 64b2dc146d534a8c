# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Repeats a training step that was not finite.

python tools/misc/replay_step.py CONFIG WORK_DIR/nonfinite_iter_37.pth
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command, printable


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('config', help='config file of the run')
    add('file', help='file that NumericalGuardHook wrote')
    add('--device', default='cpu', help='where to run the step (default: cpu)')
    add(
        '--anomaly',
        action='store_true',
        help="use PyTorch's anomaly detection, which names the operation "
        'whose gradient is NaN (slow)',
    )
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    import torch

    from mmext.engine.guards.replay import images_of, load_step, replay
    from mmext.utils.config import load_config

    cfg = load_config(args.config)
    step = load_step(args.file)
    with torch.autograd.set_detect_anomaly(args.anomaly):
        found = replay(cfg, step, args.device)
    for batch, diagnosis in zip(step['batches'], found, strict=True):
        images = '; '.join(images_of(batch['data'])) or 'unknown'
        print('images:', printable(images))
        for line in diagnosis.lines():
            print(printable(f'  {line}'))


if __name__ == '__main__':
    main()
