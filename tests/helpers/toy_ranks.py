# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A toy run in each process of torchrun that writes how it ended.

torchrun --nproc_per_node=2 toy_ranks.py WORK_DIR
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import torch
from toy import Toy, build_runner

from mmext.errors import UserError

RANK = int(os.environ['RANK'])


class Constant(Toy):
    """Not finite for image 5, which only one process loads."""

    def change(self, losses, images):
        if 5 in images:
            losses['loss_cls'] = losses['loss_cls'] + math.inf


def main() -> None:
    folder = Path(sys.argv[1])
    runner = build_runner(
        folder, Constant(), images=16, launcher='pytorch', batch_size=1
    )
    message = ''
    try:
        runner.train()
    except UserError as error:
        message = str(error)
    torch.save(
        {'message': message, 'iter': runner.iter}, folder / f'rank_{RANK}.pth'
    )


if __name__ == '__main__':
    main()
