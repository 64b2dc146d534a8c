# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the trained models of a plan, for claims that are not about top-1.

    python benchmarks/evidence_measures.py evidence/NAME WORK_DIR \
        [--images data/cifar10/test] [--layers PATTERN]

With --images: TNS, the share of stiff blocks (NSI of twice the mean) in per
cent, and the NSI of each block, over 500 images. With --layers: the mean angle
between filters of these layers, and its spread. Writes
evidence/NAME/measures.json, one entry a run; benchmarks/evidence.py reads it.
Entries of runs whose checkpoints are not in WORK_DIR are kept if they are of
the same plan, so runs can be measured as they end; each names its commit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmext.analysis.filter_angles import compare_angles
from mmext.analysis.stiffness import stiffness_surface
from mmext.analysis.stiffness_report import measure_models
from mmext.errors import UserError, command
from mmext.experiments.plan import Job, read_plan
from mmext.experiments.runs.job import is_finished, job_name
from mmext.utils.documents import parse_json, read_bytes
from mmext.utils.files import write_json
from mmext.utils.git import commit

OUT = 'measures.json'
IMAGES = 500


def stiffness(config: str, checkpoint: Path, images: str) -> dict[str, Any]:
    models = [(config, str(checkpoint))]
    [found] = measure_models(models, [images], limit=IMAGES).values()
    _, ratio = stiffness_surface(found.nsi, np.ones(1), np.zeros(1))
    means = [round(float(value), 6) for value in found.nsi.mean(0)]
    return {
        'tns': found.tns,
        'stiff': 100 * float(ratio[0, 0]),
        'nsi': dict(zip(found.blocks, means, strict=True)),
    }


def angles(config: str, checkpoint: Path, layers: str) -> dict[str, float]:
    [found] = compare_angles(config, checkpoint, layers).values()
    degrees = np.concatenate([layer.degrees for layer in found.values()])
    return {'angle': float(degrees.mean()), 'spread': float(degrees.std())}


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder', type=Path, help='of evidence/')
    parser.add_argument('work_dir', help='of the runs')
    parser.add_argument('--images', help='folder of images: stiffness')
    parser.add_argument('--layers', help='pattern of layers: angles')
    args = parser.parse_args(argv)
    plan, out = read_plan(args.folder / 'plan.yaml'), args.folder / OUT
    known = parse_json(read_bytes(out), out) if out.exists() else {}
    found = known['runs'] if known.get('plan_sha256') == plan.sha256 else []
    runs = {Job(run['side'], run['seed']): run for run in found}
    now = commit(args.folder)
    for job in plan.jobs():
        folder = plan.folder_of(job, args.work_dir)
        last = folder / 'last_checkpoint'
        if not (is_finished(plan, job, folder) and last.exists()):
            continue
        checkpoint = Path(last.read_text().strip())
        model = plan.side(job.side).config, folder / checkpoint.name
        values: dict[str, Any] = {}
        if args.images:
            values |= stiffness(*model, args.images)
        if args.layers:
            values |= angles(*model, args.layers)
        runs[job] = {'side': job.side, 'seed': job.seed, 'commit': now}
        runs[job] |= values
        numbers = (
            f'{name} {value:.4g}'
            for name, value in values.items()
            if isinstance(value, float)
        )
        print(f'{job_name(job)}: {", ".join(numbers)}', flush=True)
    if not runs:
        raise UserError(
            f'{args.work_dir} has no finished run of {args.folder} with its '
            'checkpoint',
            'Give the work dir of mmext run.',
        )
    words = [
        'python',
        'benchmarks/evidence_measures.py',
        *(argv or sys.argv[1:]),
    ]
    content = {
        'command': ' '.join(map(str, words)),
        'plan_sha256': plan.sha256,
        'runs': [runs[job] for job in plan.jobs() if job in runs],
    }
    write_json(out, content, indent=1)


if __name__ == '__main__':
    main()
