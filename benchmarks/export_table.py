# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Exports detectors of many families and backbones, in one table.

    python benchmarks/export_table.py IMAGES                  # what is missing
    python benchmarks/export_table.py IMAGES 'retinanet_*'    # these again
    python benchmarks/export_table.py IMAGES --latency
    python benchmarks/export_table.py --trained CONFIG CHECKPOINT

Weights are random, and scaled so that scores of the pictures differ. Each
file is compared with its model on pictures of the folder IMAGES, as ``mmext
export`` does. With ``--latency``, model and file run in turn on one picture
of 640x480, on one core and on two: wait until nothing else runs.
``--trained`` adds the AP of a trained detector and its smaller files.

Results are kept in results/export_table.json after each row, so that a run
that was stopped goes on; results/export_table.md is written at the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

from mmext.engine.predict import load_detector
from mmext.errors import UserError, command
from mmext.evaluation.report.table import Table
from mmext.export.detector import read_image
from mmext.export.eager import EagerDetector
from mmext.export.exported import ExportedFile
from mmext.export.formats import SUFFIXES
from mmext.export.preparation import resized
from mmext.export.tracing.supported import require_supported
from mmext.export.write import export_detector
from mmext.models.build import build_model
from mmext.utils.config import load_config
from mmext.utils.files import write_json
from mmext.utils.images import find_images
from mmext.utils.machine import processor
from mmext.utils.timing import in_turn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tests/helpers'))
from tiny_families import save_weights, spread_outputs  # noqa: E402

RESULTS = ROOT / 'benchmarks' / 'results' / 'export_table.json'
#: Config, format, and width and height of a file for one size.
CASES = [
    *(
        (f'{folder}/{name}.py', 'onnx', None)
        for folder, names in {
            'attention': (
                'retinanet_se-r50_fpn_1x_coco',
                'retinanet_eca-r50_fpn_1x_coco',
                'retinanet_fca-r50_fpn_1x_coco',
                'faster-rcnn_srm-r50_fpn_1x_coco',
                'mask-rcnn_se-r50_fpn_1x_coco',
            ),
            'stepnet': (
                'retinanet_stepnet-r50_fpn_1x_coco',
                'fcos_stepnet-r50_fpn_1x_coco',
                'atss_stepnet-r50_fpn_1x_coco',
                'faster-rcnn_resnet-r101_fpn_1x_coco',
                'faster-rcnn_stepnet-r50_fpn_1x_coco',
                'mask-rcnn_stepnet-r50_fpn_1x_coco',
                'tood_stepnet-r50_fpn_1x_coco',
                'dino-4scale_stepnet-r50_8xb2-12e_coco',
            ),
            'starnet': (
                'retinanet_starnet-s1_fpn_1x_coco',
                'retinanet_starnet-s2_fpn_1x_coco',
                'retinanet_starnet-s3_fpn_1x_coco',
                'retinanet_starnet-s4_fpn_1x_coco',
                'faster-rcnn_starnet-s1_fpn_1x_coco',
                'mask-rcnn_starnet-s1_fpn_1x_coco',
                'mask-rcnn_starnet-s4_fpn_1x_coco',
                'rtmdet-tiny_starnet-s1_8xb32-300e_coco',
                'rtmdet-ins-tiny_starnet-s1_8xb32-300e_coco',
            ),
            'dwnet': (
                'retinanet_dwnet-tiny_fpn_1x_coco',
                'faster-rcnn_dwnet-tiny_fpn_1x_coco',
                'faster-rcnn_dwnet-tiny-homogeneous_fpn_1x_coco',
                'faster-rcnn_dwnet-tiny-inhomogeneous_fpn_1x_coco',
                'mask-rcnn_dwnet-tiny_fpn_1x_coco',
                'cascade-mask-rcnn_dwnet-tiny_fpn_ms-crop-3x_coco',
            ),
            'demonet': (
                'faster-rcnn_demonet-d12-w192-star_sfp_1x_coco',
                'faster-rcnn_demonet-d12-w192-sum_sfp_1x_coco',
            ),
            'timm': (
                'retinanet_efficientnet-b0_fpn_1x_coco',
                'fcos_mobilenetv4-s_fpn_1x_coco',
                'atss_repvit-m1_fpn_1x_coco',
                'faster-rcnn_convnext-t_fpn_1x_coco',
                'rtmdet-tiny_mobilenetv4-s_8xb32-300e_coco',
                'rtmdet-s_fastvit-t8_8xb32-300e_coco',
                'rtmdet-ins-s_repvit-m1_8xb32-300e_coco',
            ),
        }.items()
        for name in names
    ),
    ('gmlp/faster-rcnn_gmlp-small_sfp_1x_coco.py', 'onnx', (256, 224)),
    ('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'onnx', None),
    ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 'onnx', None),
    ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'onnx', None),
    ('mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', 'onnx', None),
    *(
        (f'starnet/{name}_starnet-s1_{rest}_coco.py', other, None)
        for other in ('torch', 'openvino')
        for name, rest in {
            'retinanet': 'fpn_1x',
            'mask-rcnn': 'fpn_1x',
            'rtmdet-tiny': '8xb32-300e',
        }.items()
    ),
]
#: What pictures are resized to; the other two sizes are parts of it.
SCALE = (320, 256)
TIMED = (480, 640)
ROUNDS = 3


def key_of(case: tuple) -> str:
    return f'{Path(case[0]).stem} {case[1]}'


def prepare_case(
    case: tuple, images: list[Path], folder: Path
) -> tuple[Path, Path]:
    """Writes the config of a case for small images, and random weights."""
    name, _, size = case
    base, _, path = name.rpartition('::')
    cfg = get_config(name) if base else load_config(ROOT / 'configs' / path)
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.pop('pretrained', None)
    scale = size or SCALE
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'Resize':
            step['scale'] = scale
        elif step['type'] == 'Pad':
            step['size'] = scale
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build_model(cfg.model)
    require_supported(model)
    config = folder / f'{Path(name).stem}.py'
    cfg.dump(config)
    pictures = [resized(read_image(i), scale[::-1]) for i in images]
    spread_outputs(model, pictures, cls=1, reg=0.02)
    return config, save_weights(model, config.with_suffix('.pth'))


def row_of(case: tuple, images: list[Path], folder: Path) -> dict[str, Any]:
    """Exports a case, and returns how far its file is from its model."""
    _, kind, size = case
    start = time.perf_counter()
    try:
        config, checkpoint = prepare_case(case, images, folder)
        out = folder / (config.stem + SUFFIXES[kind])
        done = export_detector(
            config,
            checkpoint,
            out,
            file_format=kind,
            size=size,
            images=images,
            check=12,
            force=True,
        )
    except UserError as error:
        return {'problem': error.problem}
    parity = done.parity
    parts = out, out.with_suffix('.bin')
    return {
        'agrees': parity.agrees,
        'seconds': time.perf_counter() - start,
        'bytes': sum(p.stat().st_size for p in parts if p.exists()),
        'pairs': parity.pairs,
        'alone': len(parity.alone),
        'box': parity.box,
        'score': parity.score,
        'mask_iou': parity.mask_iou,
        'multiple': done.meta.multiple,
        'size': size,
        'batches': parity.sizes,
        'digest': done.digests[out],
    }


def latency_of(
    case: tuple, image: Path, folder: Path, digest: str
) -> dict[str, list[float]]:
    """Returns milliseconds of mmdet's model, mmext's and the file, by cores.

    mmext runs some models in channels-last memory.
    """
    from mmext.checkpoints.trust import trusting

    config = folder / f'{Path(case[0]).stem}.py'
    checkpoint = config.with_suffix('.pth')
    shape = (case[2][1], case[2][0]) if case[2] else TIMED
    picture = [resized(read_image(image), shape)]
    model = load_detector(load_config(config), checkpoint, 'cpu').model
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    found = {}
    cores = sorted(os.sched_getaffinity(0))
    for count in (1, 2):
        # Each runtime takes as many threads as there are cores.
        os.sched_setaffinity(0, cores[:count])
        torch.set_num_threads(count)
        with trusting(digest):
            file = ExportedFile(config.with_suffix(SUFFIXES[case[1]]))
        work = {
            'mmdet': partial(EagerDetector(plain), picture),
            'mmext': partial(EagerDetector(model), picture),
            'file': partial(file, picture),
        }
        times = in_turn(work, ROUNDS)
        found[str(count)] = [
            1000 * statistics.median(seconds) for seconds in times.values()
        ]
    os.sched_setaffinity(0, cores)
    return found


def page(content: dict) -> str:
    """Returns the table."""
    rows, refused = [], []
    for name, row in content['rows'].items():
        if 'problem' in row:
            refused.append(f'- {name}: {row["problem"]}')
            continue
        masks = row['mask_iou']
        cells = [
            name,
            'yes' if row['agrees'] else 'no',
            'x'.join(map(str, row['size'])) if row['size'] else 'any',
            f'{row["bytes"] / 1e6:.1f}',
            f'{row["pairs"]}',
            f'{row["alone"]}',
            f'{row["box"]:.1g}',
            f'{row["score"]:.1g}',
            '-' if masks is None else f'{masks:.6f}',
        ]
        for count in '12':
            times = row.get('latency', {}).get(count)
            cells.append(
                f'{" / ".join(f"{t:.0f}" for t in times)}, '
                f'{times[0] / times[2]:.2f}'
                if times
                else '-'
            )
        rows.append(cells)
    equal = sum(cells[1] == 'yes' for cells in rows)
    header = [
        'config and format',
        'equal',
        'size',
        'MB',
        'pairs',
        'alone',
        'box, px',
        'score',
        'IoU of masks',
        '1 thread, ms',
        '2 threads, ms',
    ]
    of_any = [r for r in content['rows'].values() if not r.get('size', 1)]
    sizes = of_any[0]['batches'] if of_any else ['none yet']
    text = [
        '# Exported detectors',
        '',
        '`python benchmarks/export_table.py IMAGES`: random weights, '
        f'{content["versions"]}. Files are compared with their models on real '
        f'pictures: {", ".join(sizes)} for files of any size, none '
        f'of which the exporter saw. {equal} of {len(rows)} files are equal: '
        'paired by label in any order, boxes within 0.01 px, scores within '
        '1e-5, at most 1 % of detections without a partner ("alone").',
        '',
        Table(header, rows).markdown(),
        "Times are of mmdet's model, the same in the memory format of mmext, "
        'and the file, with the ratio of first to last; one picture of '
        f'{TIMED[1]}x{TIMED[0]}, medians of {ROUNDS} rounds in turn'
        + (
            f', {content["machine"]}, load {content["load"]:.1f} before.'
            if 'machine' in content
            else '; they were not measured yet.'
        ),
        '',
    ]
    if refused:
        text += ['## Not exported', '', *refused, '']
    if content['trained']:
        text += ['## AP of trained detectors', '']
        text += ['On all test images, with 95 % intervals of the loss.', '']
    for name, table in content['trained'].items():
        text += [f'`{name}`:', '', Table(*table).markdown()]
    return '\n'.join(text)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('images', nargs='?', type=Path, help='folder of real pictures')
    add('patterns', nargs='*', help='configs to export again')
    add('--latency', action='store_true')
    add('--trained', nargs=2, metavar=('CONFIG', 'CHECKPOINT'))
    add('--limit', type=int, default=10**6, help='cases of this run')
    add('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'export_table')
    args = parser.parse_args()
    folder = args.work_dir
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {'rows': {}, 'trained': {}}
    if RESULTS.exists():
        content = json.loads(RESULTS.read_text())
    import onnxruntime

    content['versions'] = (
        f'torch {torch.__version__}, onnxruntime {onnxruntime.__version__}'
    )
    rows = content['rows']
    images = find_images([args.images]) if args.images else []
    if args.trained:
        config, checkpoint = args.trained
        with tempfile.TemporaryDirectory() as scratch:
            done = export_detector(
                config,
                checkpoint,
                Path(scratch, 'detector.onnx'),
                precisions=['fp16', 'int8'],
                check=10**6,
            )
            table = done.table()
        # Times are of use on an idle machine only.
        keep = [i for i in range(len(table.header)) if i != 2 or args.latency]
        header, *rows_of = (
            [line[i] for i in keep] for line in (table.header, *table.rows)
        )
        content['trained'][Path(config).stem] = [header, rows_of]
        write_json(RESULTS, content)
    if args.latency:
        content['load'] = os.getloadavg()[0]
        content['machine'] = processor()
    for i, case in enumerate(CASES if images else (), 1):
        key = key_of(case)
        chosen = any(fnmatch(key, p + '*') for p in args.patterns)
        if args.latency:
            if 'digest' in rows.get(key, {}) and (chosen or not args.patterns):
                rows[key]['latency'] = latency_of(
                    case, images[0], folder, rows[key]['digest']
                )
        elif chosen or key not in rows:
            if args.patterns and not chosen:
                continue
            rows[key] = row_of(case, images, folder)
        else:
            continue
        write_json(RESULTS, content)
        print(f'{i}/{len(CASES)} {key}: {rows.get(key)}', flush=True)
        args.limit -= 1
        if not args.limit:
            break
    RESULTS.with_suffix('.md').write_text(page(content))


if __name__ == '__main__':
    main()
