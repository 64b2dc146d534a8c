# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests a checkpoint and writes its predictions.

    python tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--tta]
    tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [any option of this tool]

COCO result files go to WORK_DIR/predictions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmext.errors import command
from mmext.utils.huge_pages import use_huge_pages
from mmext.utils.options import add_run_options, add_sha256, parse_run


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help='checkpoint file, URL or torchvision://name')
    add('--work-dir', help='folder of logs and predictions')
    add('--out', metavar='FILE.pkl', help='also write the raw results')
    add('--show', action='store_true', help='show the detections')
    add(
        '--show-dir',
        help='write images with detections to WORK_DIR/time/SHOW_DIR',
    )
    add(
        '--wait-time',
        type=float,
        default=2,
        help='how long each image is shown, in seconds',
    )
    add('--tta', action='store_true', help='test-time augmentation')
    add_sha256(parser)
    add_run_options(parser)
    return parse_run(parser, argv)


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    use_huge_pages()
    from mmext.engine.launch import test

    test(
        args.config,
        args.checkpoint,
        data=args.data,
        classes=args.classes,
        work_dir=args.work_dir,
        out=args.out,
        show=args.show,
        show_dir=args.show_dir,
        wait_time=args.wait_time,
        tta=args.tta,
        sha256=args.sha256,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
        trust_checkpoint=args.trust_checkpoint,
        check_data=not args.skip_data_checks,
    )


if __name__ == '__main__':
    main()
