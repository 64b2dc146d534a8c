# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Detections are compared by label, in any order."""

from __future__ import annotations

import numpy as np
import pytest

from mmext.export.detections import Detections
from mmext.export.parity import Parity, pair

BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [20, 20, 40, 40.0]])
ONE = Detections(BOXES, np.array([0.9, 0.8, 0.7]), np.array([0, 1, 2]))


def changed(order=(0, 1, 2), box=0.0, score=0.0, labels=None) -> Detections:
    """Returns ONE in another order, and then its first detection changed."""
    order = list(order)
    boxes, scores = ONE.boxes[order].copy(), ONE.scores[order].copy()
    boxes[0, 2] += box
    scores[0] += score
    found = ONE.labels[order] if labels is None else np.array(labels)
    return Detections(boxes, scores, found)


def compared(other: Detections) -> Parity:
    result = Parity()
    result.add(ONE, other)
    return result


def test_the_order_does_not_count():
    rows, columns = pair(ONE, changed([2, 0, 1]))
    assert dict(zip(rows, columns, strict=True)) == {0: 1, 1: 2, 2: 0}
    result = compared(changed([2, 0, 1]))
    assert result.agrees and result.pairs == 3
    assert result.box == result.score == 0


@pytest.mark.parametrize(
    ('box', 'score', 'agrees'),
    [(0.009, 0, True), (0.011, 0, False), (0, 9e-6, True), (0, 2e-5, False)],
)
def test_limits(box, score, agrees):
    result = compared(changed(box=box, score=score))
    assert result.agrees == agrees and not result.alone
    assert result.box == pytest.approx(box, abs=1e-9)
    assert result.score == pytest.approx(score, abs=1e-9)


def test_what_has_no_partner_is_counted_and_shown():
    result = compared(changed(box=1.5))
    assert result.pairs == 2 and not result.agrees
    assert result.alone == [
        'only in the model: label 0, score 0.900000, box 0.00, 0.00, 10.00, '
        '10.00',
        'only in the file: label 0, score 0.900000, box 0.00, 0.00, 11.50, '
        '10.00',
    ]
    text = '\n'.join(result.lines())
    assert '2 without a partner' in text
    assert result.alone[1] in text


def test_another_label_is_another_detection():
    result = compared(changed(labels=[3, 1, 2]))
    assert result.pairs == 2 and len(result.alone) == 2


def test_each_has_one_partner():
    twice = Detections(BOXES[[1, 1]], np.array([0.8, 0.8]), np.array([1, 1]))
    result = compared(twice)
    assert result.pairs == 1 and len(result.alone) == 3


def test_the_nearest_are_partners():
    """Two equal boxes of one label are paired by their scores."""
    boxes, labels = BOXES[[1, 1]], np.array([1, 1])
    result = Parity()
    result.add(
        Detections(boxes, np.array([0.8, 0.3]), labels),
        Detections(boxes, np.array([0.3, 0.8]), labels),
    )
    assert result.agrees and result.pairs == 2


def test_one_in_a_hundred_may_be_alone():
    many = np.arange(100)[:, None] * 50 + BOXES[0]
    found = Detections(many, np.full(100, 0.5), np.zeros(100, int))
    for less, agrees in ((1, True), (3, False)):
        result = Parity()
        result.add(
            found,
            Detections(many[less:], found.scores[less:], found.labels[less:]),
        )
        assert len(result.alone) == less and result.agrees == agrees


def test_finding_nothing_proves_nothing():
    empty = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    result = Parity()
    result.add(empty, empty)
    assert not result.agrees
    assert 'found nothing' in '\n'.join(result.lines())


def test_masks():
    a, b = np.zeros((2, 3, 8, 8), bool)
    a[:, :2], b[:, :2] = True, True
    b[1, 2] = True
    result = Parity()
    result.add(
        Detections(BOXES, ONE.scores, ONE.labels, a),
        Detections(BOXES, ONE.scores, ONE.labels, b),
    )
    assert result.mask_iou == pytest.approx(48 / 56)
    assert not result.agrees
