# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Versions for mmcv's environment report."""

import torch
import torchvision


def get_compiler_version() -> str:
    """Returns what the ops run on, as no compiler was used."""
    return f'none (mmext on torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """Returns the CUDA version of PyTorch, whose kernels are used."""
    return torch.version.cuda or 'not available'
