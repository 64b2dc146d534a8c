# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which classes of an annotation file a comparison is about.

A run may have been tested on some of the classes. AP is taken over the
classes that every run knows; otherwise a class that a detector cannot predict
would count as AP 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.predictions import Predictions, read_meta
from mmext.utils.text import sentences, some

#: The name of a run and its result file.
Named = tuple[str, Path]


def choose_classes(
    truth: GroundTruth,
    runs: Sequence[Named],
    classes: Sequence[str] | None = None,
) -> tuple[GroundTruth, list[str]]:
    """Leaves the classes that all runs know, and says which were left out.

    Args:
        truth: Ground truth of the runs.
        runs: Name and result file of each run.
        classes: Names of the classes to evaluate. Default: all that every
            run knows, according to what testing wrote beside its file.

    Returns:
        The ground truth of these classes, and warnings.

    Raises:
        UserError: A class is not a category, or the runs have no class in
            common.
    """
    if classes is not None:
        for name in classes:
            if name not in truth.names:
                raise UserError(
                    f'class {name!r} is not a category of {truth.path}',
                    sentences(
                        did_you_mean(name, truth.names),
                        f'It has: {some(truth.names, 20)}',
                    ),
                )
        truth = _of_names(truth, set(classes))
    known = {path: _known(truth, path) for _, path in runs}
    tested = [(n, p, known[p]) for n, p in runs if known[p] is not None]
    if not tested:
        return truth, []
    common = [n for n in truth.names if all(n in x for *_, x in tested)]
    each = '; '.join(f'{n}: {some(sorted(x))} ({p})' for n, p, x in tested)
    if not common:
        raise UserError(
            f'the runs know no class in common: {each}',
            'Compare runs that were tested on the same classes.',
        )
    if len(common) == len(truth.names):
        return truth, []
    left = [name for name in truth.names if name not in common]
    text = f'AP is that of {some(common, 20)}, the classes of the runs.'
    if len({names for *_, names in tested}) > 1:
        text = (
            f'The runs know different classes ({each}). They are compared on '
            f'the common ones: {some(common, 20)}.'
        )
    text += f' Left out of {truth.path}: {some(left, 20)}.'
    return _of_names(truth, set(common)), [text]


def check_undetected(truth: GroundTruth, preds: Predictions) -> list[str]:
    """Returns a warning about classes of which a run has no detection.

    If it is not known which classes the run knows, they may be others.
    """
    if _known(truth, preds.path) is not None or not len(preds):
        return []
    objects = {a['category_id'] for a in truth.dataset['annotations']}
    found = set(np.unique(preds.category_id).tolist())
    missed = [
        name
        for i, name in truth.all_names.items()
        if i in objects and i not in found
    ]
    if not missed:
        return []
    return [
        f'{preds.path} has no detection of {some(missed)}, of which there are '
        'objects: AP 0 counts in the mean. If the detector does not know '
        f'{"it" if len(missed) == 1 else "them"}, name the others: --classes.'
    ]


def _known(truth: GroundTruth, path: Path) -> frozenset[str] | None:
    """Names of the classes that a run knows; None if no file has them."""
    names = read_meta(path).get('categories')
    if not isinstance(names, dict):
        return None
    return frozenset(map(str, names.values())) & set(truth.names) or None


def _of_names(truth: GroundTruth, names: set[str]) -> GroundTruth:
    pairs = zip(truth.category_ids.tolist(), truth.names, strict=True)
    return truth.of_classes(i for i, name in pairs if name in names)
