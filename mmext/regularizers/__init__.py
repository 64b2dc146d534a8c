# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Orthogonality terms and the hook that adds them to a loss."""

from mmext.regularizers.hook import OrthogonalityHook
from mmext.regularizers.self_orthogonality import SelfOrthogonality
from mmext.regularizers.weight_terms import (
    OCNN,
    SRIP,
    DoubleSoftOrthogonality,
    MutualCoherence,
    OffDiagonalOrthogonality,
    SoftOrthogonality,
)

__all__ = [
    'OCNN',
    'SRIP',
    'DoubleSoftOrthogonality',
    'MutualCoherence',
    'OffDiagonalOrthogonality',
    'OrthogonalityHook',
    'SelfOrthogonality',
    'SoftOrthogonality',
]
