# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The numbers of a comparison, which tables and pages present."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmext.evaluation.coco.ground_truth import GroundTruth
from mmext.evaluation.coco.matching import Matches
from mmext.evaluation.coco.predictions import Predictions
from mmext.evaluation.runs import Run
from mmext.evaluation.statistics.comparison import Comparison

if TYPE_CHECKING:
    from mmext.evaluation.cost.latency import Latency
    from mmext.evaluation.tested import Complexity


@dataclass(frozen=True)
class EvaluatedSide:
    """A `Side` with its results, one entry a seed."""

    name: str
    runs: tuple[Run, ...]
    predictions: tuple[Predictions, ...]
    matches: tuple[Matches, ...]
    cost: Complexity | None = None
    latencies: Sequence[Latency] = ()


@dataclass(frozen=True)
class Results:
    """The numbers of a comparison.

    All values are shares from 0 to 1; only text has AP points (0 to 100).

    Args:
        truth: Ground truth.
        iou_type: ``'bbox'`` or ``'segm'``.
        sides: The baseline, then the candidates.
        comparisons: One a candidate.
        warnings: About the inputs.
        margin: A loss of AP, from 0 to 1, that would not matter. Default:
            None.
    """

    truth: GroundTruth
    iou_type: str
    sides: tuple[EvaluatedSide, ...]
    comparisons: tuple[Comparison, ...]
    warnings: Sequence[str] = ()
    margin: float | None = None

    @property
    def names(self) -> list[str]:
        """Names of the sides, the baseline first."""
        return [side.name for side in self.sides]

    def candidates(self) -> Iterator[tuple[EvaluatedSide, Comparison]]:
        """Yields each candidate with its comparison."""
        yield from zip(self.sides[1:], self.comparisons, strict=True)
