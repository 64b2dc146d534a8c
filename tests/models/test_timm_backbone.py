# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Models of timm as backbones: maps, weights, freezing, sizes, errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from backbone_checks import randomise
from mmengine.runner.checkpoint import load_checkpoint
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmext.checkpoints.released import load_released_weights
from mmext.checks.backbone.measures import gradients
from mmext.checks.backbone.properties import check_checkpointing
from mmext.errors import UserError
from mmext.models import TimmBackbone

NAMES = timm.list_models('test_*')
PLAIN = [n for n in NAMES if n.startswith('test_vit')]
SIDE = 160  # the default of all of them


def weights(name: str) -> dict[str, torch.Tensor]:
    """A released state dict, with the classifier."""
    return randomise(timm.create_model(name)).state_dict()


@pytest.mark.parametrize('name', NAMES)
def test_maps_equal_those_of_timm(name: str) -> None:
    model = TimmBackbone(name).eval()
    theirs = timm.create_model(
        name, features_only=True, out_indices=model.out_indices
    ).eval()
    state = weights(name)
    load_released_weights(model, state)
    inner = getattr(theirs, 'model', theirs)
    if any(key not in state for key in inner.state_dict()):
        # timm flattens containers: stages.0 is called stages_0 there.
        state = {
            key.replace('.', '_', 1) if key.count('.') > 1 else key: value
            for key, value in state.items()
        } | state
    missing, _ = inner.load_state_dict(state, strict=False)
    assert not missing
    x = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        outs, expected = model(x), theirs(x)
    assert isinstance(outs, tuple) and len(outs) == len(expected)
    for out, other, width, stride in zip(
        outs, expected, model.out_channels, model.strides, strict=True
    ):
        if other.shape != out.shape:
            other = other.permute(0, 3, 1, 2)
        assert torch.equal(out, other)
        assert out.shape == (2, width, SIDE // stride, SIDE // stride)
    assert model.strides == ((16,) if name in PLAIN else (4, 8, 16, 32))


def test_final_norm_is_that_of_timm() -> None:
    state = weights('test_vit')
    model = TimmBackbone('test_vit', out_indices=(2, -1), final_norm=True)
    load_released_weights(model, state)
    theirs = timm.create_model('test_vit').eval()
    theirs.load_state_dict(state)
    x = torch.rand(1, 3, SIDE, SIDE)
    expected = theirs.forward_intermediates(
        x, indices=[2, 5], norm=True, intermediates_only=True
    )
    for out, other in zip(model.eval()(x), expected, strict=True):
        assert torch.equal(out, other)
    # The last one is what the classifier gets.
    tokens = theirs.forward_features(x)[:, theirs.num_prefix_tokens :]
    assert torch.equal(out.flatten(2).mT, tokens)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('out_indices', [None, (0, 2), 1])
def test_no_parameter_is_unused(name: str, out_indices: object) -> None:
    """With several processes, each parameter needs a gradient."""
    model = TimmBackbone(name, out_indices).train()
    found = gradients(model, model(torch.rand(2, 3, SIDE, SIDE)))
    assert found.total and not found.unused


@pytest.mark.parametrize('name', NAMES)
def test_building_draws_what_timm_draws(name: str) -> None:
    torch.manual_seed(3)
    model = TimmBackbone(name)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    theirs = timm.create_model(name, num_classes=0).state_dict()
    assert torch.equal(torch.get_rng_state(), after)
    model.init_weights()
    for key, value in model.model.state_dict().items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('frozen', [0, 1, 3])
def test_frozen_groups_are_those_of_timm(name: str, frozen: int) -> None:
    model = TimmBackbone(name, frozen_stages=frozen).train()
    groups = timm.models.group_parameters(
        model.model, model.model.group_matcher(coarse=True), reverse=True
    )
    held = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert held == {f'model.{n}' for n, i in groups.items() if i <= frozen}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    outs = model(torch.rand(2, 3, SIDE, SIDE))
    sum(out.sum() for out in outs).backward()
    near = tuple(f'{name.rpartition(".")[0]}.' for name in held)
    for key, value in model.state_dict().items():
        if 'running' in key and key.startswith(near):
            assert torch.equal(value, before[key]), key
    for key, module in model.named_modules():
        own = {f'{key}.{n}' for n, _ in module.named_parameters()}
        if key and own and own <= held:
            assert not any(m.training for m in module.modules()), key


def test_all_and_too_many_frozen_groups() -> None:
    model = TimmBackbone('test_resnet')
    last = len(model.freezable) - 1
    model = TimmBackbone('test_resnet', frozen_stages=last)
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(UserError, match=f'and {last} everything'):
        TimmBackbone('test_resnet', frozen_stages=last + 1)


def test_a_model_with_one_kind_of_groups() -> None:
    """RDNet has no coarse groups; its others are a stem and stages."""
    model = TimmBackbone('rdnet_tiny', frozen_stages=1)
    stages = [n for n, _ in model.model.dense_stages.named_children()]
    assert len(model.freezable) == 1 + len(stages)
    held = {n for n, p in model.named_parameters() if not p.requires_grad}
    near = ('model.stem.', f'model.dense_stages.{stages[0]}.')
    assert held == {
        n for n, _ in model.named_parameters() if n.startswith(near)
    }


def test_norm_eval() -> None:
    model = TimmBackbone('test_resnet', norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(m.training for m in norms)
    assert model.model.training


@pytest.mark.parametrize('name', ['test_convnext', 'test_resnet', 'test_vit'])
def test_checkpointing(name: str) -> None:
    plain, lean = (TimmBackbone(name, with_cp=cp).double() for cp in (0, 1))
    x = torch.rand(2, 3, SIDE, SIDE).double()
    found = check_checkpointing(plain, lean, x)
    assert found.ok, found


def test_a_model_without_checkpointing() -> None:
    with pytest.raises(UserError, match='coat_tiny of timm has no gradient'):
        TimmBackbone('coat_tiny', with_cp=True)


def test_drop_path_rate() -> None:
    model = TimmBackbone('test_vit', drop_path_rate=0.3)
    rates = [m.drop_prob for m in model.modules() if hasattr(m, 'drop_prob')]
    assert max(rates) == pytest.approx(0.3)


@pytest.mark.parametrize('size', [(65, 97), (127, 161), (160, 33)])
def test_vit_pads_odd_sizes(size: tuple[int, int]) -> None:
    model = randomise(TimmBackbone('test_vit')).eval()
    x = torch.rand(1, 3, *size)
    (out,) = model(x)
    height, width = (-(-n // 16) for n in size)
    assert out.shape == (1, 64, height, width)
    full = torch.zeros(1, 3, 16 * height, 16 * width)
    full[..., : size[0], : size[1]] = x
    assert torch.equal(out, model(full)[0])


def test_fixed_size_and_img_size() -> None:
    model = TimmBackbone('test_vit', dynamic_img_size=False)
    assert model.fixed_size == (SIDE, SIDE)
    with pytest.raises(UserError, match='160x160 pixels only, and got 96x64'):
        model(torch.rand(1, 3, 96, 64))
    for dynamic in (None, False):
        model = TimmBackbone(
            'test_vit', img_size=(96, 64), dynamic_img_size=dynamic
        )
        assert model(torch.rand(1, 3, 96, 64))[0].shape == (1, 64, 6, 4)
    model = TimmBackbone('test_maxvit', img_size=96)
    assert [m.shape[2] for m in model(torch.rand(1, 3, 96, 96))] == [
        24,
        12,
        6,
        3,
    ]
    with pytest.raises(UserError, match='96x96.*or build it with img_size'):
        model(torch.rand(1, 3, 128, 96))


@pytest.mark.parametrize(
    ('name', 'size', 'error', 'stride'),
    [
        ('vit_tiny_patch16_224', 100, 'Input height', 16),
        ('test_vit_relpos', (64, 90), 'Input width', 16),
        ('maxvit_tiny_tf_224', 100, 'divisible', 32),
        ('efficientformer_l1', 256, 'broadcast|match', 32),
        ('mvitv2_tiny', 100, 'index', 32),
        ('xcit_nano_12_p16_224', 100, 'evenly', 16),
        ('test_vit_relpos', 0, '', 16),
        ('test_vit_relpos', (32,), '', 16),
        ('test_vit', '160', '', 16),
    ],
)
def test_sizes_that_timm_refuses(
    name: str, size: Any, error: str, stride: int
) -> None:
    """They are refused as the model is built, not in its first forward."""
    dynamic = False if name.startswith('vit_tiny') else None
    text = rf'fails with img_size=.*: .*{error}'
    with pytest.raises(UserError, match=text) as caught:
        TimmBackbone(name, img_size=size, dynamic_img_size=dynamic)
    side = 160 if name.startswith('test') else 224
    assert caught.value.fix == (
        f'Use ({side}, {side}), or other multiples of {stride}.'
    )


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
@pytest.mark.parametrize('name', ['test_vit', 'test_convnext', 'test_resnet'])
def test_files_of_timm(tmp_path: Path, name: str, kind: str) -> None:
    """The classifier and pruned blocks are left out; the rest is strict."""
    state = weights(name)
    file = tmp_path / f'weights.{kind}'
    if kind == 'pth':
        torch.save(state, file)
    else:
        save_file(state, file)
    cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    model = TimmBackbone(name, out_indices=(0, 1), init_cfg=cfg)
    model.init_weights()
    own = model.model.state_dict()
    assert set(own) < set(state)
    assert all(torch.equal(value, state[key]) for key, value in own.items())


def test_position_embeddings_are_resampled_as_by_timm() -> None:
    state = weights('test_vit')
    model = TimmBackbone('test_vit', img_size=(96, 224))
    load_released_weights(model, state)
    convert = sys.modules[type(model.model).__module__].checkpoint_filter_fn
    theirs = timm.create_model('test_vit', img_size=(96, 224))
    expected = convert(state, theirs)['pos_embed']
    assert expected.shape != state['pos_embed'].shape
    assert torch.equal(model.model.pos_embed, expected)


def test_other_layouts_go_through_timm() -> None:
    """Meta's names of ConvNeXt, which timm's filter knows."""
    state = weights('test_convnext')
    theirs = {
        key.replace('stem.', 'downsample_layers.0.')
        .replace('.blocks.', '.')
        .replace('conv_dw', 'dwconv')
        .replace('mlp.fc', 'pwconv')
        .replace('head.norm', 'norm')
        .replace('head.fc', 'head'): value
        for key, value in state.items()
    }
    for i in (1, 2, 3):
        theirs = {
            key.replace(f'stages.{i}.downsample', f'downsample_layers.{i}'): v
            for key, v in theirs.items()
        }
    assert theirs.keys() != state.keys()
    model = TimmBackbone('test_convnext')
    load_released_weights(model, {'model': theirs})
    for key, value in model.model.state_dict().items():
        assert torch.equal(value, state[key])


def test_checkpoint_of_another_variant() -> None:
    model = TimmBackbone('test_vit')
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match='does not fit TimmBackbone') as error:
        load_released_weights(model, weights('test_vit3'))
    assert 'Give weights of test_vit' in str(error.value)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_detector_checkpoints(tmp_path: Path) -> None:
    """Saved in a detector, it loads in another one, and as a backbone."""
    detector = nn.ModuleDict({'backbone': randomise(TimmBackbone('test_vit'))})
    file = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': detector.state_dict(), 'meta': {}}, file)
    other = nn.ModuleDict({'backbone': TimmBackbone('test_vit')})
    load_checkpoint(other, str(file), strict=True)
    cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    single = TimmBackbone('test_vit', init_cfg=cfg)
    single.init_weights()
    expected = detector['backbone'].state_dict()
    for model in (other['backbone'], single):
        for key, value in model.state_dict().items():
            assert torch.equal(value, expected[key])


def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache of the hub; without it, a message with the address."""
    import huggingface_hub

    state = weights('test_resnet')
    save_file(state, tmp_path / 'model.safetensors')

    def download(repo: str, name: str, revision: str | None) -> str:
        assert (repo, revision) == ('timm/test_resnet.r160_in1k', None)
        return str(tmp_path / name)

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, 'hf_hub_download', download)
        model = TimmBackbone('test_resnet', pretrained=True)
        model.init_weights()
    for key, value in model.model.state_dict().items():
        assert torch.equal(value, state[key])
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    model = TimmBackbone('test_resnet', pretrained=True)
    with pytest.raises(UserError, match='could not download') as error:
        model.init_weights()
    for text in (
        'timm/test_resnet.r160_in1k/resolve/main/model.safetensors',
        "checkpoint='model.safetensors'",
    ):
        assert text in str(error.value)


def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, says in (
        (('convnext_tinny',), "Did you mean 'convnext_tiny'"),
        (('convnext_tiny.fb_in1kk',), "Did you mean 'fb_in1k'"),
        (('test_resnet', 7), r'out_indices=7 names an output'),
        (('vgg11', None, 3, 224), 'vgg11 takes no img_size'),
    ):
        with pytest.raises(UserError, match=says):
            TimmBackbone(*arguments)
    with pytest.raises(UserError, match='vgg11 takes no drop_path_rate=0.1'):
        TimmBackbone('vgg11', drop_path_rate=0.1)
    with pytest.raises(UserError, match='pretrained=True and init_cfg'):
        TimmBackbone('test_vit', pretrained=True, init_cfg={'type': 'Normal'})
    with pytest.raises(UserError, match='no weights of gmlp_ti16_224'):
        TimmBackbone('gmlp_ti16_224', pretrained=True)
    import mmext.timm_models  # noqa: F401

    with pytest.raises(UserError, match='no features of mmext_starnet_s1'):
        TimmBackbone('mmext_starnet_s1')
    monkeypatch.setattr(timm, '__version__', '1.0.30')
    with pytest.raises(UserError, match='or later, and 1.0.30 is installed'):
        TimmBackbone('test_vit')
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(UserError, match='it is missing.*\n.*pip install'):
        TimmBackbone('test_vit')
