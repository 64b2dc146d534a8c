# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Ranks the attention of a trained model's blocks and keeps the best.

    python tools/analysis_tools/attention_ticket.py CONFIG CHECKPOINT \
        --images FOLDER --out CONFIG_OUT [--keep K]

Prints every block's NSI and the effect of fixing its step to its mean, and
writes a config in which only the K best blocks have attention.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmext.errors import UserError, command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('config', help='config of the trained model')
    add('checkpoint', help='its weights')
    add('--images', nargs='+', required=True, help='image files or folders')
    add('--limit', type=int, default=20, help='images at most (default 20)')
    add('--out', required=True, metavar='FILE.py', help='config to write')
    add(
        '--keep',
        type=int,
        metavar='K',
        help='blocks to keep (default: those with 90 %% of the effect)',
    )
    add('--device', default='cpu')
    return parser.parse_args()


@command
def main() -> None:
    args = parse_args()
    from mmext.analysis import loading
    from mmext.analysis.attention_ticket import (
        propose,
        rank_blocks,
        ticket_config,
    )

    files = loading.find_images(args.images, args.limit)
    device = loading.device_of(args.device)
    cfg, model = loading.load_model(args.config, args.checkpoint, device)
    inputs = loading.image_inputs(cfg, model, files)
    ranked, _ = rank_blocks(model.backbone, inputs)
    keep = propose(ranked) if args.keep is None else args.keep
    if not 0 < keep <= len(ranked):
        raise UserError(
            f'--keep {keep}: the model has {len(ranked)} blocks with '
            'attention.',
            f'Choose 1 to {len(ranked)}.',
        )
    total = sum(b.effect for b in ranked) or 1.0
    print(f'{"block":14}{"NSI":>8}{"effect":>10}{"share":>8}')
    for i, block in enumerate(ranked):
        nsi = 'first' if block.nsi != block.nsi else f'{block.nsi:.3f}'
        print(
            f'{block.name:14}{nsi:>8}{block.effect:>10.5f}'
            f'{block.effect / total:>8.1%}  {"keep" if i < keep else ""}'
        )
    names = sorted(b.name for b in ranked[:keep])
    text = ticket_config(args.config, cfg, names, args.out)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(text)
    print(f'wrote {args.out}: attention in {keep} of {len(ranked)} blocks')


if __name__ == '__main__':
    main()
