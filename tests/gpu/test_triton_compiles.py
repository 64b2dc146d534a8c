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
# A100, H100, B200.
ARCHITECTURES = (80, 90, 100)
WARPS = 4
MAX_REGISTERS = 255
PTXAS = Path(triton.backends.nvidia.__file__).parent / 'bin'
# Channels that share their weights, and types. Offsets are many with few
# channels, and values are large in float64: there the registers are few.
CASES = [
    *[(32, dtype) for dtype in ('fp32', 'fp16', 'bf16')],
    *[(share, 'fp64') for share in (1, 2)],
    *[
        pytest.param(share, dtype, marks=pytest.mark.slow)
        for share in (1, 2, 4, 8, 16, 32)
        for dtype in ('fp32', 'fp16', 'bf16', 'fp64')
    ],
]


def assembler(architecture: int) -> Path:
    """Returns the ptxas that Triton brings for an architecture."""
    newer = PTXAS / 'ptxas-blackwell'
    return newer if architecture >= 100 and newer.exists() else PTXAS / 'ptxas'


def resources(
    kernel: object, architecture: int, dtype: str, folder: Path, **constants
) -> tuple[int, int]:
    """Compiles a kernel; returns registers per thread and bytes spilled."""
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
    name = f'sm_{architecture}' + ('a' if architecture >= 90 else '')
    command = [assembler(architecture), '-v', f'--gpu-name={name}', ptx]
    done = subprocess.run(
        [*command, '-o', folder / 'kernel.cubin'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    spilled = re.findall(r'(\d+) bytes spill', done.stderr)
    used = re.findall(r'Used (\d+) registers', done.stderr)
    assert spilled and used, done.stderr
    return max(map(int, used)), sum(map(int, spilled))


@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize(('share', 'dtype'), CASES)
@pytest.mark.parametrize('kind', ['gather', 'transposed', 'weight_grad'])
def test_kernel_compiles_without_spills(
    kind: str, share: int, dtype: str, architecture: int, tmp_path: Path
) -> None:
    channels, positions = kernels._tile(share)
    constants = {
        'SIZE': 7,
        'ACC': tl.float64 if dtype == 'fp64' else tl.float32,
        'CHANNELS': channels,
        'POSITIONS': positions,
    }
    kernel = kernels._weight_grad_kernel
    if kind != 'weight_grad':
        kernel = kernels._gather_kernel
        constants['TRANSPOSED'] = kind == 'transposed'
    registers, spilled = resources(
        kernel, architecture, dtype, tmp_path, **constants
    )
    assert spilled == 0
    assert registers <= MAX_REGISTERS
