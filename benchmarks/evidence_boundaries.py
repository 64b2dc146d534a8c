# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Measures the decision boundaries of star and sum networks.

    python benchmarks/evidence_boundaries.py

For each of 20 seeds, on the paper's points and on new ones: by how much more
of the plane a network agrees with the polynomial SVM than with the RBF SVM, in
per cent, and its accuracy on the points. Writes
evidence/decision-boundary/measures.json.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from mmext.analysis.decision_boundary import KERNELS, NETWORKS, experiment
from mmext.utils.files import write_json
from mmext.utils.git import commit

FOLDER = Path(__file__).resolve().parents[1] / 'evidence/decision-boundary'
#: docs/stars.md has the seeds from 0: these are new.
SEEDS = range(100, 120)


def main() -> None:
    runs, begun = [], datetime.now(timezone.utc)
    for seed in SEEDS:
        for points, data_seed in (('', 0), (', new points', seed)):
            found = experiment(seed, data_seed)
            for name in NETWORKS:
                near, far = (found.agreement(name, k) for k in KERNELS)
                values = {
                    'closer': 100 * (near - far),
                    'accuracy': 100 * found.accuracy[name],
                }
                runs.append({'side': name + points, 'seed': seed, **values})
    content = {
        'command': 'python benchmarks/evidence_boundaries.py',
        'commit': commit(FOLDER),
        'begun': begun.isoformat(timespec='seconds'),
        'runs': runs,
    }
    write_json(FOLDER / 'measures.json', content, indent=1)


if __name__ == '__main__':
    main()
