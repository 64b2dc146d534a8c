# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Tests a detector's checkpoint: mmdet's options, on GPUs or on none.

    python tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--tta]
    tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [any option of this tool]

COCO result files go to WORK_DIR/predictions.
"""

from __future__ import annotations

import argparse

from mmext.errors import command
from mmext.utils.options import add_run_options, add_sha256, parse_run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help='checkpoint file, URL or torchvision://name')
    add('--work-dir', help='folder of logs and predictions')
    add('--out', metavar='FILE.pkl', help='also dump the raw results')
    add('--show', action='store_true', help='show the detections')
    add('--show-dir', help='draw the detections into WORK_DIR/time/SHOW_DIR')
    add('--wait-time', type=float, default=2, help='seconds an image shows')
    add('--tta', action='store_true', help='test-time augmentation')
    add_sha256(parser)
    add_run_options(parser)
    return parse_run(parser)


@command
def main() -> None:
    from mmext.engine.launch import test

    test(parse_args())


if __name__ == '__main__':
    main()
