# Licensed under the Apache License, Version 2.0. See LICENSE.
"""DWNet against the numbers of the official code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import backbone_checks as checks
import pytest
import torch
from golden import assert_golden, golden_fill, golden_input
from triton_interpreter import run_interpreted

from mmext.checkpoints.released import load_released_weights
from mmext.errors import UserError
from mmext.models import DWNet
from mmext.models.layers.dynamic_depthwise_conv import InhomogeneousDynamicConv
from mmext.models.layers.local_mlp import LocalMLP

# With the 1000-class head of the released networks.
PARAMETERS = {
    ('tiny', None): 24_172_744,
    ('tiny', 'homogeneous'): 51_131_752,
    ('tiny', 'inhomogeneous'): 26_244_280,
    ('base', None): 74_347_112,
    ('base', 'homogeneous'): 161_597_928,
    ('base', 'inhomogeneous'): 80_253_608,
}
FORMS = [name for name in checks.CASES if name.startswith('DWNet')]
build_static = checks.CASES['DWNet'].build


@pytest.fixture(params=FORMS)
def build(request: pytest.FixtureRequest) -> Callable[..., DWNet]:
    """Builds a small network in each form."""
    return checks.CASES[request.param].build


def test_smaller_patches_give_larger_levels(x: torch.Tensor) -> None:
    usual, fine = build_static(), build_static(patch_size=2)
    assert fine.strides == (2, 4, 8, 16)
    for a, b in zip(usual(x), fine(x), strict=True):
        assert b.shape[2:] == tuple(2 * n for n in a.shape[2:])


@pytest.mark.parametrize(
    ('form', 'dynamic'), [('static', None), ('dynamic', 'homogeneous')]
)
def test_equals_the_official_detection_backbone(
    form: str, dynamic: str | None, golden: dict, shared
) -> None:
    name = f'dwnet_tiny_{form}_detection'
    model = DWNet('tiny', dynamic).double().eval()
    load_released_weights(model, checks.reference_weights(shared, name))
    outs = model(golden_input(golden[name]['input']))
    for out, ref in zip(outs, golden[name]['outs'], strict=True):
        assert_golden(out, ref)


def check_imagenet_form(golden: dict, keys: Path, dynamic: str | None) -> None:
    """Tokens after each layer and its merging, and the class scores."""
    reference = golden[keys.stem]
    weights = golden_fill(checks.made_up_weights(keys))
    model = DWNet('tiny', dynamic, out_indices=-1, final_norm=True)
    model.double().eval()
    load_released_weights(model, weights)
    tokens = []
    for layer in model.layers:
        end = getattr(layer, 'downsample', layer.blocks[-1])
        end.register_forward_hook(lambda m, args, out: tokens.append(out))
    (last,) = model(golden_input(reference['input']))
    expected = reference['layer_outputs_tokens_BLC_after_downsample']
    for out, ref in zip(tokens, expected, strict=True):
        assert_golden(out.flatten(2).transpose(1, 2), ref)
    assert_golden(checks.class_scores(last, weights), reference['logits'])


@pytest.mark.parametrize('dynamic', [None, 'inhomogeneous'])
def test_equals_the_official_imagenet_network(
    dynamic: str | None, golden: dict, shared
) -> None:
    name = f'dwnet_tiny_{dynamic or "static"}_imagenet'
    keys = shared(f'facts/state_dict_keys/{name}.json')
    with torch.no_grad():
        check_imagenet_form(golden, keys, dynamic)


@pytest.mark.slow  # the interpreter takes a minute of one core
@pytest.mark.skipif(find_spec('triton') is None, reason='needs Triton')
def test_triton_gives_the_official_numbers(shared) -> None:
    """The network with the Triton kernels, in Triton's interpreter."""
    name = 'facts/state_dict_keys/dwnet_tiny_inhomogeneous_imagenet.json'
    golden = shared('golden/backbones.json')
    out = run_interpreted(__file__, golden, shared(name))
    assert 'golden through Triton' in out


def run_golden_through_triton(golden: str, keys: str) -> None:
    """What the process started by the test above runs."""
    import json

    from mmext.models.layers import (
        generated_conv,
        inhomogeneous_conv,
        inhomogeneous_conv_triton,
    )

    # Large tiles: the interpreter's cost is per program.
    inhomogeneous_conv_triton.TILE = 1 << 14
    inhomogeneous_conv_triton.MAX_POSITIONS = 1 << 14
    calls = []

    def implementation(backend: str) -> tuple:
        calls.append(backend)
        triton = inhomogeneous_conv_triton
        return triton.gather, triton.weight_grad

    generated_conv.pick_backend = lambda x, backend: 'triton'
    inhomogeneous_conv._implementation = implementation
    with torch.no_grad():
        check_imagenet_form(
            json.loads(Path(golden).read_text()), Path(keys), 'inhomogeneous'
        )
    assert len(calls) == 12  # the blocks of tiny
    print('golden through Triton')


@pytest.mark.parametrize(('arch', 'dynamic'), PARAMETERS)
def test_parameter_counts_equal_the_papers(
    arch: str, dynamic: str | None
) -> None:
    with torch.device('meta'):
        model = DWNet(arch, dynamic, out_indices=-1, final_norm=True)
    assert checks.count_with_classifier(model) == PARAMETERS[arch, dynamic]


def test_levels_are_in_the_usual_format(build, x: torch.Tensor) -> None:
    """Compiled RoI ops misread other formats."""
    assert all(out.is_contiguous() for out in build().eval()(x))


@pytest.mark.parametrize('dynamic', [None, 'homogeneous', 'inhomogeneous'])
def test_shapes_without_data(dynamic: str | None) -> None:
    # How FLOPs are counted without computing anything.
    model = DWNet(dynamic=dynamic).to('meta').eval()
    levels = model(torch.empty(1, 3, 64, 96, device='meta'))
    shapes = [tuple(x.shape[1:]) for x in levels]
    assert shapes == [(96, 16, 24), (192, 8, 12), (384, 4, 6), (768, 2, 3)]


def test_padding(build, x: torch.Tensor) -> None:
    """It matters exactly where windows do not tile the features."""
    padded = checks.randomise(build()).double().eval()
    plain = build(pad_to_window=False).double().eval()
    plain.load_state_dict(padded.state_dict())
    tiled = torch.rand(1, 3, 224, 224, dtype=torch.float64)
    torch.testing.assert_close(plain(tiled), padded(tiled))
    ragged = x.double()
    same = [
        torch.allclose(a, b)
        for a, b in zip(plain(ragged), padded(ragged), strict=True)
    ]
    # The local MLP pads what it needs by itself, but not before the norm.
    assert not any(same)


def test_channels_per_group() -> None:
    model = build_static('inhomogeneous', channels_per_group=2)
    groups = [
        m.groups
        for m in model.modules()
        if isinstance(m, InhomogeneousDynamicConv)
    ]
    assert groups == [4, 8, 8, 16, 32]


def test_windows_shift_in_every_other_block() -> None:
    model = build_static(token_mixer='local_mlp')
    shifts = [m.shift for m in model.modules() if isinstance(m, LocalMLP)]
    assert shifts == [0, 0, 3, 0, 0]


def test_drop_path_rates() -> None:
    """The official detectors' by default; rising from 0."""
    for arch, last in (('tiny', 0.2), ('base', 0.3)):
        with torch.device('meta'):
            model = DWNet(arch)
        rates = [
            block.drop_path.drop_prob
            for layer in model.layers
            for block in layer.blocks
        ]
        assert rates[0] == 0 and rates[-1] == pytest.approx(last)
        assert rates == sorted(rates)


def test_initial_weights() -> None:
    """Linear layers as in Swin; convolutions are PyTorch's."""
    model = build_static()
    before = model.patch_embed.proj.weight.clone()
    model.init_weights()
    assert torch.equal(model.patch_embed.proj.weight, before)
    linear = model.layers[3].blocks[0].mlp.fc1
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not linear.bias.any()


def test_smallest_image_of_fewer_stages() -> None:
    model = build_static(out_indices=1)
    model(torch.rand(1, 3, 8, 64))
    with pytest.raises(UserError, match='8x8'):
        model(torch.rand(1, 3, 7, 64))


if __name__ == '__main__':
    run_golden_through_triton(*sys.argv[1:])
