# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Checks mmext on a GPU in at most eight minutes and writes a report.

    make gpu-check
    python benchmarks/gpu_check.py --out gpu_check.md

mmext was developed without a GPU. Please send the report back, whatever it
says. The exit code is 0 if every check passed, 1 if one failed and 2 if one
was skipped, as all are without a GPU.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import mmext  # before mmcv and mmdet: it provides mmcv._ext

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tests/gpu'))
from op_cases import op_cases, run_case, tensors  # noqa: E402

SECONDS = 8 * 60


class SkipError(Exception):
    """Why a check cannot run here."""


@dataclass
class Result:
    """What a check found: 'passed', 'failed' or 'skipped', and why."""

    name: str
    status: str
    seconds: float
    lines: list[str]


def difference(a: Tensor, b: Tensor) -> float:
    """Returns the largest difference, of floats relative to the largest."""
    a, b = a.detach().cpu(), b.detach().cpu()
    if a.shape != b.shape:
        return float('inf')
    if not a.numel():
        return 0.0
    if not a.is_floating_point():
        return float((a != b).any())
    if not torch.equal(a.isnan(), b.isnan()):
        return float('inf')
    a, b = a.double().nan_to_num(), b.double().nan_to_num()
    return float((a - b).abs().max() / a.abs().max().clamp(min=1))


def worst_of(first: list[Tensor], second: list[Tensor]) -> float:
    return max(difference(a, b) for a, b in zip(first, second, strict=True))


def seconds_of(work: Callable[[], object], rounds: int = 20) -> float:
    """Returns the median time of a function on the GPU."""
    times = []
    for i in range(rounds + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def process(*command: str, limit: float = 120) -> str:
    """Runs a script of the project; returns its output. Raises if it fails."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit,
    )
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    return done.stdout


def check_ops_against_cpu() -> Iterator[str]:
    """Each op of mmcv with its gradients, on the CPU and on the GPU."""
    wrong = []
    for name, case in op_cases().items():
        worst = worst_of(run_case(case, 'cpu'), run_case(case, 'cuda'))
        yield f'{name}: {worst:.1e}'
        if worst > 1e-4:
            wrong.append(name)
    if wrong:
        raise AssertionError(f'differ by more than 1e-4: {", ".join(wrong)}')


def check_ops_against_golden_files() -> Iterator[str]:
    """The stored results of mmcv's compiled ops."""
    if not (ROOT.parent / 'shared/golden/ops').exists():
        raise SkipError('../shared/golden/ops is missing')
    out = process(
        *('-m', 'pytest', '-p', 'no:cacheprovider', '--device', 'cuda'),
        *('-p', 'no:xdist', 'tests/mmcv_ext/test_golden.py'),
        limit=150,
    )
    passed = re.search(r'\d+ passed.*', out)
    assert passed, 'no test ran'
    yield passed.group()


def check_deterministic_roi_align() -> Iterator[str]:
    """RoIAlign's gradient with PyTorch's deterministic algorithms."""
    from mmcv import ops

    torch.manual_seed(0)
    x = torch.randn(1, 8, 32, 32, device='cuda', requires_grad=True)
    corner = torch.rand(40, 2, device='cuda') * 20
    far = corner + torch.rand(40, 2, device='cuda') * 10
    rois = torch.cat([torch.zeros(40, 1, device='cuda'), corner, far], 1)

    def gradient() -> Tensor:
        out = ops.roi_align(x, rois, 7, 1.0, 0, 'avg', True)
        return torch.autograd.grad(out.square().sum(), x)[0]

    plain = gradient()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = gradient(), gradient()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first, second), 'two runs differ'
    worst = difference(plain, first)
    assert worst < 1e-4, f'differs from the kernel by {worst:.1e}'
    yield f'repeatable; {worst:.1e} from the kernel'


def check_triton_kernels() -> Iterator[str]:
    """The inhomogeneous convolution: Triton against PyTorch."""
    from importlib.util import find_spec

    from mmext.models.layers.inhomogeneous_conv import (
        inhomogeneous_depthwise_conv,
    )

    if find_spec('triton') is None:
        raise SkipError('Triton is not installed')
    torch.manual_seed(0)
    for dtype, limit in (
        (torch.float32, 1e-5),
        (torch.bfloat16, 2e-2),
        (torch.float16, 3e-3),
        (torch.float64, 1e-10),
    ):
        for channels, groups in ((64, 2), (6, 6), (8, 4)):
            x = torch.randn(2, channels, 25, 38, device='cuda', dtype=dtype)
            weight = torch.randn(
                *(2, groups, 49, 25, 38), device='cuda', dtype=dtype
            )
            found = []
            for backend in ('triton', 'torch'):
                leaves = [t.clone().requires_grad_() for t in (x, weight)]
                out = inhomogeneous_depthwise_conv(*leaves, backend)
                out.float().square().mean().backward()
                found.append([out, *(t.grad for t in leaves)])
            worst = worst_of(*found)
            yield f'{dtype}, {channels} channels, {groups} groups: {worst:.1e}'
            assert worst < limit, f'the limit is {limit:.0e}'
    x = torch.randn(2, 96, 200, 304, device='cuda', requires_grad=True)
    weight = torch.rand(2, 3, 49, 200, 304, device='cuda', requires_grad=True)
    for backend in ('triton', 'torch'):

        def step(backend: str = backend) -> None:
            out = inhomogeneous_depthwise_conv(x, weight, backend)
            torch.autograd.grad(out, (x, weight), torch.ones_like(out))

        taken = 1e3 * seconds_of(step)
        yield f'{backend}, 2x96x200x304, a step: {taken:.2f} ms'


SE = {'cfg': {'type': 'SEAttention'}, 'position': 'after_conv3'}
DWNET = {'type': 'DWNet', 'arch': 'tiny', 'norm_cfg': {'type': 'BN'}}
BACKBONES: dict[str, dict] = {
    'ResNet-50 (mmdet)': {'type': 'mmdet.ResNet', 'depth': 50},
    'StarNet-s1': {'type': 'StarNet', 'arch': 's1'},
    'StarNet-s4': {'type': 'StarNet', 'arch': 's4'},
    'StepNet-50': {'type': 'StepNetResNet', 'depth': 50},
    'SE-ResNet-50': {'type': 'PluginResNet', 'depth': 50, 'plugins': [SE]},
    'DWNet-tiny': DWNET,
    'DWNet-tiny-homogeneous': {**DWNET, 'dynamic': 'homogeneous'},
    'DWNet-tiny-inhomogeneous': {**DWNET, 'dynamic': 'inhomogeneous'},
    'gMLP-small': {'type': 'GMLP', 'out_indices': -1},
    'DemoNet': {'type': 'DemoNet', 'out_indices': -1},
}


def check_backbones() -> Iterator[str]:
    """Equal to the CPU; an AMP step; time of a step in float32 and AMP."""
    import mmdet.models  # noqa: F401
    from mmengine.registry import MODELS

    wrong = []
    for name, cfg in BACKBONES.items():
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        if hasattr(model, 'init_weights'):
            model.init_weights()
        x = torch.randn(4, 3, 224, 224)
        model.eval()
        on_gpu = copy.deepcopy(model).cuda()
        with torch.no_grad():
            worst = worst_of(tensors(model(x)), tensors(on_gpu(x.cuda())))
        figures = [f'{worst:.1e} from the CPU']
        if worst > 1e-3:
            wrong.append(name)
        x = x.cuda()

        def loss_of(model: nn.Module, x: Tensor = x) -> Tensor:
            return sum(t.float().square().mean() for t in tensors(model(x)))

        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            kind = str(dtype).removeprefix('torch.')
            if kind == 'bfloat16' and not torch.cuda.is_bf16_supported(False):
                figures.append('bfloat16 needs a newer GPU')
                continue
            step = training_step(on_gpu, loss_of, dtype)
            if not step():
                wrong.append(f'{name} in {kind}: not finite')
            figures.append(f'{kind} {1e3 * seconds_of(step, 5):.1f} ms')
        yield f'{name}: {", ".join(figures)}'
    if wrong:
        raise AssertionError('; '.join(wrong))


def training_step(
    model: nn.Module,
    loss_of: Callable[[nn.Module], Tensor],
    dtype: torch.dtype,
) -> Callable[[], bool]:
    """Returns a step of SGD that returns whether its gradients are finite."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-5)
    scaler = torch.amp.GradScaler(enabled=dtype == torch.float16)

    def step() -> bool:
        optimizer.zero_grad()
        with torch.autocast('cuda', dtype, enabled=dtype != torch.float32):
            loss = loss_of(model)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(grads)
        scaler.step(optimizer)
        scaler.update()
        return bool(norm.isfinite() and loss.isfinite())

    # The scale of float16 starts too high for some; it halves at each try.
    return lambda: any(step() for _ in range(8))


def check_detectors() -> Iterator[str]:
    """An AMP step of whole detectors at 800x1216, their time and memory."""
    import mmdet
    from mmdet.testing import demo_mm_inputs
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmext.models.build import build_model

    init_default_scope('mmdet')
    configs = Path(mmdet.__file__).parent / '.mim/configs'
    for name in (
        configs / 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        ROOT / 'configs/stepnet/faster-rcnn_stepnet-r50_fpn_1x_coco.py',
        ROOT / 'configs/starnet/mask-rcnn_starnet-s1_fpn_1x_coco.py',
        ROOT / 'configs/dwnet/retinanet_dwnet-tiny_fpn_1x_coco.py',
    ):
        cfg = Config.fromfile(name).model
        cfg.backbone.pop('init_cfg', None)
        if cfg.backbone.get('norm_cfg', {}).get('type') == 'SyncBN':
            cfg.backbone.norm_cfg.type = 'BN'
        torch.manual_seed(0)
        model = build_model(cfg).cuda()
        data = demo_mm_inputs(
            2, [(3, 800, 1216)] * 2, [4, 4], 80, with_mask='mask' in str(name)
        )
        data = model.data_preprocessor(data, True)

        def loss_of(model: nn.Module, data: dict = data) -> Tensor:
            return model.parse_losses(model(**data, mode='loss'))[0]

        torch.cuda.reset_peak_memory_stats()
        step = training_step(model, loss_of, torch.float16)
        assert step(), f'{name.stem}: loss or gradients are not finite'
        taken = seconds_of(step, 10)
        model.eval()
        with torch.no_grad():
            model(**data, mode='predict')
        peak = torch.cuda.max_memory_allocated() / 2**30
        yield f'{name.stem}: {2 / taken:.1f} images/s, {peak:.1f} GiB'


def check_nccl() -> Iterator[str]:
    """All GPUs: a sum, and DDP with SyncBN against one process."""
    count = torch.cuda.device_count()
    if not torch.distributed.is_nccl_available():
        raise SkipError('this PyTorch has no NCCL')
    out = process(
        *('-m', 'torch.distributed.run', '--standalone'),
        *(f'--nproc-per-node={count}', __file__, '--worker'),
    )
    yield f'{count} GPUs: {out.strip().splitlines()[-1]}'


def worker() -> None:
    """One process of the check of NCCL."""
    from mmcv.ops import SyncBatchNorm
    from torch import distributed

    rank, count = int(os.environ['LOCAL_RANK']), int(os.environ['WORLD_SIZE'])
    torch.cuda.set_device(rank)
    distributed.init_process_group('nccl')
    total = torch.full((3,), float(rank), device='cuda')
    distributed.all_reduce(total)
    assert (total == count * (count - 1) / 2).all(), total
    torch.manual_seed(0)
    images = torch.randn(2 * count, 4, 6, 6, device='cuda')
    alone = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).cuda()
    shared = nn.Sequential(nn.Conv2d(4, 8, 3), SyncBatchNorm(8)).cuda()
    shared.load_state_dict(alone.state_dict())
    shared = nn.parallel.DistributedDataParallel(shared, [rank])
    alone(images).square()[:, :4].mean().backward()
    part = images[2 * rank : 2 * rank + 2]
    shared(part).square()[:, :4].mean().backward()
    for a, b in zip(alone.parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    if rank == 0:
        print('sum and SyncBN gradients are right')
    distributed.destroy_process_group()


def check_speed_of_ops() -> Iterator[str]:
    """mmcv's ops against other implementations, see mmcv_ext.py."""
    out = process('benchmarks/mmcv_ext.py', '--rounds', '5')
    yield from out.strip().splitlines()


def check_training_steps() -> Iterator[str]:
    """Stock runner against ours on the same batch, see training_step.py."""
    out = process('benchmarks/training_step.py', '--rounds', '5', limit=150)
    yield from out.strip().splitlines()


CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    'ops against the CPU': check_ops_against_cpu,
    'ops against golden files': check_ops_against_golden_files,
    'deterministic RoIAlign': check_deterministic_roi_align,
    'Triton kernels': check_triton_kernels,
    'backbones': check_backbones,
    'detectors': check_detectors,
    'NCCL': check_nccl,
    'speed of ops': check_speed_of_ops,
    'training steps': check_training_steps,
}


def run(name: str, check: Callable[[], Iterator[str]], left: float) -> Result:
    """Runs a check; an error is a result too."""
    start = time.perf_counter()
    lines: list[str] = []
    status = 'passed'
    try:
        if not torch.cuda.is_available():
            raise SkipError('PyTorch finds no GPU')
        if left <= 0:
            raise SkipError(f'the {SECONDS // 60} minutes are over')
        for line in check():
            lines.append(line)
            if time.perf_counter() - start > left:
                raise SkipError('the time is over; its rest did not run')
    except SkipError as reason:
        status = 'skipped'
        lines.append(str(reason))
    except Exception as error:
        status = 'failed'
        lines += traceback.format_exc().splitlines()[-12:]
        lines.append(f'{type(error).__name__}: {error}')
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return Result(name, status, time.perf_counter() - start, lines)


def machine() -> list[str]:
    """Describes what was checked, without the name of the machine."""
    import torchvision

    found = [
        f'mmext {mmext.__version__}, Python {platform.python_version()}, '
        f'torch {torch.__version__}, torchvision {torchvision.__version__}'
    ]
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        found.append(
            f'GPU {i}: {gpu.name}, sm_{gpu.major}{gpu.minor}, '
            f'{gpu.total_memory / 2**30:.0f} GiB'
        )
    return found if len(found) > 1 else [*found, 'no GPU']


def report(results: list[Result]) -> str:
    """Returns the report in Markdown."""
    lines = ['# GPU check', '', *(f'- {line}' for line in machine()), '']
    lines += ['| check | result | seconds |', '| --- | --- | --- |']
    for r in results:
        lines.append(f'| {r.name} | {r.status} | {r.seconds:.0f} |')
    for r in results:
        lines += ['', f'## {r.name}: {r.status}', '', '```', *r.lines, '```']
    # Reports are sent to others: no paths of the machine.
    text = '\n'.join(lines) + '\n'
    return text.replace(str(ROOT), '.').replace(str(Path.home()), '~')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--out', type=Path, default=Path('gpu_check.md'))
    parser.add_argument('--worker', action='store_true', help='internal')
    args = parser.parse_args()
    if args.worker:
        worker()
        return
    warnings.filterwarnings('ignore')
    logging.disable(logging.INFO)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    start = time.perf_counter()
    results = []
    for name, check in CHECKS.items():
        left = SECONDS - (time.perf_counter() - start)
        result = run(name, check, left)
        results.append(result)
        print(f'{name}: {result.status} ({result.seconds:.0f} s)', flush=True)
        if result.status != 'passed':
            print('  ' + result.lines[-1][:300], flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(report(results), 'utf-8')
    statuses = {r.status for r in results}
    print(f'The report is {args.out}. Please send it to the authors.')
    sys.exit(1 if 'failed' in statuses else 2 if 'skipped' in statuses else 0)


if __name__ == '__main__':
    main()
