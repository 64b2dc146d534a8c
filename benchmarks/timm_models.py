# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Puts a model of each family of timm under a detector.

    python benchmarks/timm_models.py                # what is missing
    python benchmarks/timm_models.py 'swin*'        # these models again

The maps of each model are compared with timm's own, and a RetinaNet on it
trains under DDP, predicts, and is saved and loaded. Results are kept in
results/timm_models.json after each model, so that a run that was stopped goes
on, and in results/timm_models.md and a table in docs/timm.md.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tempfile
from contextlib import redirect_stdout
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import timm
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_checkpoint, save_checkpoint
from torch import Tensor, nn

from mmext.checks.backbone.measures import randomise
from mmext.errors import command
from mmext.models import TimmBackbone
from mmext.models.build import build_model
from mmext.utils.files import write_json
from mmext.utils.text import some

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'timm_models.json'
PAGE = ROOT / 'docs' / 'timm.md'
BEGIN = '<!-- Written by benchmarks/timm_models.py. -->'
END = '<!-- End. -->'
#: A small model of each module of timm, and more of its largest ones.
MODELS = (
    'botnet26t_256',
    'mobileone_s0',
    'cait_xxs24_224',
    'coat_tiny',
    'convit_tiny',
    'convmixer_768_32',
    'convnext_zepto_rms',
    'convnextv2_atto',
    'cpubone_nano',
    'crossvit_9_240',
    'csatv2',
    'cs3darknet_focus_s',
    'cspnext_tiny',
    'davit_tiny',
    'deit_tiny_patch16_224',
    'densenet121',
    'dla46_c',
    'dpn48b',
    'edgenext_xx_small',
    'efficientformer_l1',
    'efficientformerv2_s0',
    'efficientnet_b0',
    'efficientvim_m1',
    'efficientvit_b0',
    'efficientvit_m0',
    'eva02_tiny_patch14_224',
    'vit_small_patch16_dinov3',
    'fasternet_t0',
    'fastvit_t8',
    'focalnet_tiny_srf',
    'gcvit_xxtiny',
    'ghostnet_050',
    'hardcorenas_a',
    'hgnetv2_b0',
    'hiera_tiny_224',
    'hieradet_small',
    'hrnet_w18_small',
    'iformer_t',
    'inception_next_atto',
    'inception_v3',
    'lcnetv2_small',
    'levit_128s',
    'lowformer_b0',
    'mambaout_femto',
    'coatnet_pico_rw_224',
    'maxvit_pico_rw_256',
    'poolformer_s12',
    'gmlp_ti16_224',
    'mixer_s32_224',
    'resmlp_12_224',
    'mobilenetv3_small_050',
    'mobilenetv4_conv_small',
    'mobilenetv4_hybrid_medium',
    'mobilevit_xxs',
    'mvitv2_tiny',
    'nest_tiny',
    'nextvit_small',
    'nf_regnet_b0',
    'pit_ti_224',
    'pvt_v2_b0',
    'rdnet_tiny',
    'regnetx_002',
    'repghostnet_050',
    'repvgg_a0',
    'repvit_m0_9',
    'res2next50',
    'resnest14d',
    'resnet10t',
    'resnetv2_18',
    'rexnet_100',
    'selecsls42',
    'legacy_seresnet18',
    'sequencer2d_s',
    'shvit_s1',
    'skresnet18',
    'starnet_s050',
    'swiftformer_xs',
    'swin_tiny_patch4_window7_224',
    'swinv2_tiny_window8_256',
    'swinv2_cr_tiny_224',
    'tiny_vit_5m_224',
    'tnt_s_patch16_224',
    'tresnet_m',
    'twins_svt_small',
    'vgg11',
    'visformer_tiny',
    'vit_tiny_patch16_224',
    'vit_small_patch14_dinov2',
    'vit_tiny_r_s16_p8_224',
    'vit_relpos_small_patch16_224',
    'vitamin_small_224',
    'volo_d1_224',
    'ese_vovnet19b_slim_dw',
    'legacy_xception',
    'xception41',
    'xcit_nano_12_p16_224',
    'beit_base_patch16_224',
    'naflexvit_base_patch16_gap',
    'vit_base_patch16_siglip_224',
    'samvit_base_patch16_224',
)
#: Heights and widths of the two images, for models that take any size.
ODD = ((97, 131), (121, 90))


def timms_maps(model: TimmBackbone, x: Tensor) -> list[Tensor]:
    """Returns the same maps by timm's own interface."""
    theirs = timm.create_model(
        model.name,
        features_only=True,
        out_indices=model.out_indices,
        **model.model_args,
    )
    # timm may flatten containers: stages.0 is then called stages_0.
    own = {
        key.replace('.', '_'): value
        for key, value in model.model.state_dict().items()
    }
    for key, value in theirs.eval().state_dict().items():
        key = key.removeprefix('model.').removeprefix('body.')
        # Some keep more, which the maps do not depend on.
        if key.replace('.', '_') in own:
            value.copy_(own[key.replace('.', '_')])
    with torch.no_grad():
        return theirs(x)


def check_maps(model: TimmBackbone) -> None:
    """Raises `ValueError` if a bit of the maps differs from timm's."""
    # timm's models do not pad to whole patches.
    stride = max(model.strides)
    size = [-(-n // stride) * stride for n in (128, 192)]
    x = torch.rand(2, 3, *(model.fixed_size or size))
    with torch.no_grad():
        outs = model(x)
    for out, other in zip(outs, timms_maps(model, x), strict=True):
        if other.shape != out.shape:
            other = other.permute(0, 3, 1, 2)
        if not torch.equal(out, other):
            error = float((out - other).abs().max())
            raise ValueError(f"maps differ from timm's by {error:.1e}")


def detector(backbone: TimmBackbone, divisor: int) -> nn.Module:
    """Builds a small RetinaNet with a level for each map, and one more."""
    strides = backbone.strides
    cfg = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    init_default_scope('mmdet')
    neck: dict[str, Any] = {'type': 'FPN', 'add_extra_convs': 'on_output'}
    if len(strides) == 1:
        neck = {'type': 'SimpleFeaturePyramid', 'stride': strides[0]}
        strides = (4, 8, 16, 32)
    strides = (*strides, 2 * strides[-1])
    cfg.model.backbone = {'type': 'TimmBackbone', 'name': backbone.name}
    cfg.model.neck = {
        **neck,
        'in_channels': list(backbone.out_channels),
        'out_channels': 32,
        'num_outs': len(strides),
    }
    head = cfg.model.bbox_head
    head.num_classes, head.stacked_convs = 3, 1
    head.in_channels = head.feat_channels = 32
    head.anchor_generator.strides = list(strides)
    cfg.model.data_preprocessor.pad_size_divisor = divisor
    return build_model(cfg.model)


def predict(model: nn.Module, batch: dict) -> list[Tensor]:
    data = model.eval().data_preprocessor(batch, training=False)
    with torch.no_grad():
        outs = model(**data, mode='predict')
    found = [out.pred_instances for out in outs]
    return [torch.cat((x.bboxes, x.scores[:, None]), 1) for x in found]


def train(model: nn.Module, batches: list[dict]) -> None:
    """Takes a step after two batches; DDP refuses unused parameters."""
    ddp = MMDistributedDataParallel(model.train())
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4)
    for batch in batches:
        data = model.data_preprocessor(batch, training=True)
        loss, _ = model.parse_losses(ddp(**data, mode='loss'))
        sgd.zero_grad()
        loss.backward()
        wrong = [
            name
            for name, param in model.named_parameters()
            if param.grad is None or not param.grad.isfinite().all()
        ]
        if wrong:
            raise ValueError(f'no finite gradient of {some(wrong)}')
    sgd.step()


def check_detector(backbone: TimmBackbone, divisor: int) -> None:
    """Trains for a step, predicts, saves and loads."""
    sizes = [backbone.fixed_size] * 2 if backbone.fixed_size else ODD

    def batch() -> dict:
        return demo_mm_inputs(2, [(3, *size) for size in sizes], num_classes=3)

    model = detector(backbone, divisor)
    train(model, [batch(), batch()])
    expected = predict(model, batch())
    other = randomise(copy.deepcopy(model))
    with tempfile.TemporaryDirectory() as folder:
        file = f'{folder}/epoch_1.pth'
        save_checkpoint({'state_dict': model.state_dict(), 'meta': {}}, file)
        load_checkpoint(other, file, strict=True)
    for a, b in zip(predict(other, batch()), expected, strict=True):
        if not torch.equal(a, b):
            raise ValueError('a reloaded detector predicts something else')


def check(name: str) -> dict[str, Any]:
    """Returns the row of a model; ``problem`` says what does not work."""
    torch.manual_seed(0)
    row: dict[str, Any] = {}
    try:
        model = randomise(TimmBackbone(name)).eval()
        row['parameters'] = sum(p.numel() for p in model.parameters())
        row['strides'], row['channels'] = model.strides, model.out_channels
        if model.fixed_size:
            row['images'] = '{}x{}'.format(*model.fixed_size)
        check_maps(model)
        try:
            check_detector(model, 1)
            row.setdefault('images', 'any')
        except (AssertionError, RuntimeError):  # for the size of the images
            check_detector(model, 32)
            row['images'] = 'padded to 32'
    except Exception as error:  # of any model
        row['problem'] = str(error).split('\n')[0][:200]
    return row


def tables(content: dict[str, Any]) -> tuple[str, str]:
    """Returns the page with a row for each model, and the short table."""
    rows, groups = [], {}
    for name, row in content['models'].items():
        size = f'{row["parameters"] / 1e6:.2f}' if 'parameters' in row else ''
        cells = [name, size]
        for key in ('strides', 'channels'):
            cells.append(', '.join(map(str, row.get(key, ()))))
        outcome = row.get('problem', 'yes')
        cells += [row.get('images', ''), outcome]
        rows.append(f'| {" | ".join(cells)} |')
        label = row.get('problem') or f'works, images: {row["images"]}'
        groups.setdefault(('problem' in row, label), []).append(f'`{name}`')
    works = sum('problem' not in r for r in content['models'].values())
    summary = f'{works} of {len(rows)} models work (timm {content["timm"]})'
    short = [
        f'{summary}:',
        '',
        '| outcome | models |',
        '|---|---|',
        *(
            f'| {label} | {", ".join(names)} |'
            for (_, label), names in sorted(groups.items())
        ),
    ]
    page = [
        '# A detector on each family of timm',
        '',
        f'`python benchmarks/timm_models.py`: {summary}, small ones of each '
        'family, with random weights, in float32 on a CPU.',
        '',
        '- **Maps** equal those of `timm.create_model(features_only=True)` '
        'bit for bit, on images of 128x192 pixels (of whole '
        "patches) or of the model's own size.",
        '- **RetinaNet** trains for a step on images of 97x131 and 121x90 '
        'pixels (or of the one size that the model takes); every parameter '
        'has a finite gradient. `MMDistributedDataParallel` (one process) '
        'accepts two batches and so finds no unused parameter. The detector '
        'predicts, and a checkpoint loaded into a second one gives the same '
        'boxes and scores.',
        '',
        '| model | parameters, M | strides | channels | images | works |',
        '|---' * 6 + '|',
        *rows,
        '',
    ]
    return '\n'.join(page), '\n'.join(short)


def write(content: dict[str, Any]) -> None:
    write_json(RESULTS, content)
    page, short = tables(content)
    RESULTS.with_suffix('.md').write_text(page)
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f'{before}{BEGIN}\n{short}\n{END}{after}')


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('again', nargs='*', help='models to check again')
    args = parser.parse_args()
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(
        'gloo', store=store, rank=0, world_size=1
    )
    MMLogger.get_current_instance().setLevel('WARNING')
    content = {'timm': timm.__version__, 'models': {}}
    if RESULTS.exists():
        found = json.loads(RESULTS.read_text())
        if found['timm'] == timm.__version__:
            content = found
    for i, name in enumerate(MODELS, 1):
        repeat = any(fnmatch(name, pattern) for pattern in args.again)
        if name in content['models'] and not repeat:
            continue
        with redirect_stdout(io.StringIO()):
            row = content['models'][name] = check(name)
        write(content)
        outcome = row.get('problem', 'works')
        print(f'{i}/{len(MODELS)} {name}: {outcome}', flush=True)


if __name__ == '__main__':
    main()
