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


def choose_classes(
    truth: GroundTruth,
    runs: Sequence[tuple[str, Path]],
    classes: Sequence[str] | None = None,
) -> tuple[GroundTruth, list[str]]:
    """Leaves the classes that all runs know, and warns if some are left out.

    ``runs`` are names and result files. ``classes`` are the classes to
    evaluate, by default all.

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
                        f'It has: {some(truth.names, 20)}.',
                    ),
                )
        truth = truth.of_classes(classes)
    tested = [(n, p, x) for n, p in runs if (x := _known(truth, p))]
    common = [n for n in truth.names if all(n in x for *_, x in tested)]
    if len(common) == len(truth.names):
        return truth, []
    each = '; '.join(f'{n}: {some(sorted(x))} ({p})' for n, p, x in tested)
    if not common:
        raise UserError(
            f'the runs know no class in common: {each}',
            'Compare runs that were tested on the same classes.',
        )
    left = [name for name in truth.names if name not in common]
    text = f'AP is that of {some(common, 20)}, the classes of the runs.'
    if len({names for *_, names in tested}) > 1:
        text = (
            f'The runs know different classes ({each}). They are compared on '
            f'the common ones: {some(common, 20)}.'
        )
    text += f' Left out of {truth.path}: {some(left, 20)}.'
    return truth.of_classes(common), [text]


def check_undetected(truth: GroundTruth, preds: Predictions) -> list[str]:
    """Returns a warning about classes of which a run has no detection.

    It is for runs of which it is not known which classes they know.
    """
    if _known(truth, preds.path) or not len(preds):
        return []
    objects = {a['category_id'] for a in truth.dataset['annotations']}
    missed = objects.difference(np.unique(preds.category_id).tolist())
    if not missed:
        return []
    names = [truth.all_names[i] for i in sorted(missed)]
    return [
        f'{preds.path} has no detection of {some(names)}, of which there are '
        'objects: AP 0 counts in the mean. If the detector does not know '
        f'{"it" if len(missed) == 1 else "them"}, name the others: --classes.'
    ]


def _known(truth: GroundTruth, path: Path) -> frozenset[str]:
    """The classes that a run knows; none if no file names them."""
    names = read_meta(path).get('categories')
    if not isinstance(names, dict):
        return frozenset()
    return frozenset(map(str, names.values())) & {*truth.all_names.values()}
