# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Orthogonality terms and the hook that adds them to a loss."""

from .base import Regularizer, filter_matrix
from .hook import OrthogonalityHook
from .ocnn import OCNN
from .self_orthogonality import SelfOrthogonality, hash_similarity
from .weight_terms import (
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
    'Regularizer',
    'SelfOrthogonality',
    'SoftOrthogonality',
    'filter_matrix',
    'hash_similarity',
]
