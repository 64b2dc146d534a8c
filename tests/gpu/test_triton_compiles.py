# ruff: noqa: E402, F811  # skips before the imports
# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The Triton kernels compile for GPUs, without one, and fit the registers.

A kernel that needs more registers than a thread has keeps values in memory
("spills"), which is slow and was measured on no GPU.
"""

from __future__ import annotations

import os
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest

triton = pytest.importorskip('triton', reason='Triton is of CUDA builds')

import triton.backends.nvidia
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmext.models.layers import inhomogeneous_conv_triton as kernels

pytestmark = pytest.mark.skipif(
    os.environ.get('TRITON_INTERPRET') == '1',
    reason='the kernels are interpreted',
)
ARCHITECTURES = (80, 90, 100)  # A100, H100, B200
WARPS = 4
PTXAS = Path(triton.backends.nvidia.__file__).parent / 'bin'
# Channels that share their weights, and types. Offsets are many with few
# channels, and values are large in float64: there the registers are few.
FAST = {(32, 'fp32'), (32, 'fp16'), (32, 'bf16'), (1, 'fp64'), (2, 'fp64')}
CASES = [
    pytest.param(*case, marks=() if case in FAST else pytest.mark.slow)
    for case in product((1, 2, 4, 8, 16, 32), ('fp32', 'fp16', 'bf16', 'fp64'))
]


def spilled(
    kernel: object, architecture: int, dtype: str, folder: Path, **constants
) -> int:
    """Compiles a kernel; returns the bytes of its spills."""
    names = kernel.arg_names
    types = {
        name: f'*{dtype}' if name in ('x', 'weight', 'out', 'grad') else 'i32'
        for name in names
    }
    source = ASTSource(
        fn=kernel,
        signature=types | dict.fromkeys(constants, 'constexpr'),
        constexprs={(names.index(k),): v for k, v in constants.items()},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget('cuda', architecture, 32),
        options={'num_warps': WARPS},
    )
    ptx = folder / 'kernel.ptx'
    ptx.write_text(compiled.asm['ptx'])
    # Triton brings a newer assembler for newer GPUs.
    ptxas = PTXAS / 'ptxas-blackwell'
    if architecture < 100 or not ptxas.exists():
        ptxas = PTXAS / 'ptxas'
    name = f'sm_{architecture}' + ('a' if architecture >= 90 else '')
    done = subprocess.run(
        [ptxas, '-v', f'--gpu-name={name}', ptx, '-o', folder / 'cubin'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r'(\d+) bytes spill', done.stderr)
    assert found, done.stderr
    return sum(map(int, found))


@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize(('share', 'dtype'), CASES)
@pytest.mark.parametrize('kind', ['gather', 'transposed', 'weight_grad'])
def test_kernel_compiles_without_spills(
    kind: str, share: int, dtype: str, architecture: int, tmp_path: Path
) -> None:
    channels, positions = kernels._tile(share)
    constants = {'SIZE': 7, 'CHANNELS': channels, 'POSITIONS': positions}
    constants['ACC'] = tl.float64 if dtype == 'fp64' else tl.float32
    kernel = kernels._weight_grad_kernel
    if kind != 'weight_grad':
        kernel = kernels._gather_kernel
        constants['TRANSPOSED'] = kind == 'transposed'
    assert spilled(kernel, architecture, dtype, tmp_path, **constants) == 0
