# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the stiffness of trained models and draws it.

    python tools/analysis_tools/stiffness.py CONFIG CHECKPOINT \
        [CONFIG CHECKPOINT ...] --images FOLDER --out-dir DIR

Writes tables (CSV), NSI along the blocks, delta and the stiff ratio over the
thresholds, and the step sizes of attention; several models share each figure.
With --correlate, also the rank correlation of TNS with AP over the models.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmext.errors import UserError, command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add(
        'models',
        nargs='+',
        metavar='CONFIG CHECKPOINT',
        help="pairs; the checkpoint 'none' keeps the initial weights",
    )
    add('--images', nargs='+', required=True, help='image files or folders')
    add('--limit', type=int, default=50, help='images at most (default 50)')
    add('--names', nargs='+', help='what figures call the models')
    add('--out-dir', default='work_dirs/stiffness', help='folder of results')
    add('--device', default='cpu')
    add(
        '--correlate',
        action='store_true',
        help='correlate TNS with AP over the models',
    )
    add(
        '--ap',
        nargs='+',
        type=float,
        help="AP of each model (default: from the checkpoint's work folder)",
    )
    return parser.parse_args()


def average_precision(checkpoints: list[str]) -> list[float]:
    """Box AP of the runs that left these checkpoints."""
    from mmext.evaluation.runs import read_run

    values = []
    for checkpoint in checkpoints:
        run = read_run(Path(checkpoint).parent)
        if 'AP' not in run.metrics.get('bbox', {}):
            raise UserError(
                f'{run.path} has no box AP on record.',
                'Give the numbers with --ap, one a model.',
            )
        values.append(run.metrics['bbox']['AP'])
    return values


@command
def main() -> None:
    args = parse_args()
    configs, checkpoints = args.models[::2], args.models[1::2]
    names = args.names or [Path(c).stem for c in configs]
    for what, given in (
        ('checkpoints', checkpoints),
        ('--names', names),
        ('--ap', args.ap or configs),
    ):
        if len(given) != len(configs):
            raise UserError(
                f'{len(configs)} configs and {len(given)} {what}.',
                'Give one a config: CONFIG CHECKPOINT CONFIG CHECKPOINT ...',
            )
    if len(set(names)) < len(names):
        names = [f'{name} {i + 1}' for i, name in enumerate(names)]

    from mmext.analysis import loading, stiffness_report
    from mmext.analysis.rank_correlation import correlate
    from mmext.analysis.stiffness import measure

    ap = None
    if args.correlate:
        ap = args.ap or average_precision(checkpoints)
    files = loading.find_images(args.images, args.limit)
    device = loading.device_of(args.device)
    found = {}
    for name, config, checkpoint in zip(
        names, configs, checkpoints, strict=True
    ):
        cfg, model = loading.load_model(config, checkpoint, device)
        inputs = loading.image_inputs(cfg, model, files)
        found[name] = measure(model.backbone, inputs)
        row = stiffness_report.model_row(name, found[name])
        print(', '.join(f'{k} {v}' for k, v in row.items()), flush=True)
        if left_out := found[name].left_out:
            print(
                'not finite and left out: '
                + ', '.join(str(files[i]) for i in left_out)
            )

    out = Path(args.out_dir)
    written = stiffness_report.write_tables(found, out)
    written += [
        stiffness_report.draw_trajectories(found, out / 'trajectories.png'),
        stiffness_report.draw_surfaces(found, out / 'surfaces.png'),
    ]
    steps = stiffness_report.draw_steps(found, out / 'steps.png')
    written += [steps] if steps else []
    if ap is not None:
        tns = {name: f.tns for name, f in found.items()}
        tau, rho = correlate(list(tns.values()), ap)
        print(f"TNS and AP: Kendall's tau {tau}, Spearman's rho {rho}")
        scores = dict(zip(names, ap, strict=True))
        written.append(
            stiffness_report.draw_correlation(
                tns, scores, tau, rho, out / 'correlation.png'
            )
        )
    for path in written:
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
