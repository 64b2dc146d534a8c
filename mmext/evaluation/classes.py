# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Which classes of an annotation file a comparison is about.

A run may have been tested on some of the classes. AP is taken over the
classes that every run knows; otherwise a class that a detector cannot predict
would count as AP 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmext.errors import UserError, did_you_mean
from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.meta import known_classes, read_meta
from mmext.utils.text import sentences, some


def choose_classes(
    truth: GroundTruth,
    runs: Sequence[tuple[str, Path]],
    classes: Sequence[str] | None = None,
) -> tuple[GroundTruth, list[str]]:
    """Leaves the classes that all runs know.

    ``runs`` are names and result files. ``classes`` are the classes to
    evaluate, by default all. The result has warnings about the ground truth,
    and one if classes are left out.

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
    known = [(n, p, known_classes(truth, read_meta(p))) for n, p in runs]
    tested = [run for run in known if run[2]]
    common = [n for n in truth.names if all(n in x for *_, x in tested)]
    if len(common) == len(truth.names):
        return truth, truth.warnings
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
    truth = truth.of_classes(common)
    return truth, [*truth.warnings, text]
