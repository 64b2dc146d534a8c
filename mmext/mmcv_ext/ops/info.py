# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What mmcv's environment report prints about its ops."""

import torch
import torchvision


def get_compiler_version() -> str:
    """In place of the compiler: what the ops run on."""
    return f'none (mmext on torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """CUDA version of PyTorch, whose and torchvision's kernels are used."""
    return torch.version.cuda or 'not available'
