# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Runs a training step again that was not finite; says where it went wrong.

python tools/misc/replay_step.py CONFIG WORK_DIR/nonfinite_iter_37.pth
"""

from __future__ import annotations

import argparse

from mmext.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    import torch

    from mmext.engine.guards.replay import images_of, load_step, replay
    from mmext.utils.config import load_config

    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help="the run's config")
    parser.add_argument('file', help='what NumericalGuardHook wrote')
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--anomaly',
        action='store_true',
        help="PyTorch's anomaly detection: names the operation whose "
        'gradient is NaN (slow)',
    )
    args = parser.parse_args(argv)
    cfg = load_config(args.config)
    with torch.autograd.set_detect_anomaly(args.anomaly):
        found = replay(cfg, args.file, args.device)
    for batch, diagnosis in zip(
        load_step(args.file)['batches'], found, strict=True
    ):
        print('images:', '; '.join(images_of(batch['data'])) or 'unknown')
        for line in diagnosis.lines():
            print(f'  {line}')


if __name__ == '__main__':
    main()
