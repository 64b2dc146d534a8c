# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Wrong arguments of the models and their layers."""

from __future__ import annotations

import pytest
import torch

from mmext.errors import UserError
from mmext.models import (
    GMLP,
    DemoNet,
    DWNet,
    ECAAttention,
    FCAAttention,
    SEAttention,
    SimpleFeaturePyramid,
    StarNet,
    StepAdaptor,
    StepNetResNet,
)
from mmext.models.layers.local_mlp import LocalMLP

# Model -> other arguments, wrong arguments, and what the message contains.
WRONG: dict[type, tuple[dict, list[tuple[dict, str]]]] = {
    StarNet: (
        {},
        [
            ({'arch': 'S1'}, "Did you mean 's1'"),
            ({'arch': {'embed_dims': 8, 'depth': 3}}, 'depths'),
            ({'arch': None}, 'arch=None is not known'),
            ({'arch': ['s1']}, "it is one of .*'s1'"),
            ({'out_indices': (0, 4)}, '0 to 3'),
            ({'out_indices': (2, 1)}, r'Write \(1, 2\)'),
            ({'operation': 'sun'}, "Did you mean 'sum'"),
            ({'operation': ('sum', 'star')}, '4 stages'),
            ({'act_position': 'afer'}, "Did you mean 'after'"),
            ({'weight_init': 'truncnormal'}, "Did you mean 'trunc_normal'"),
            ({'frozen_stages': 5}, '4 everything that is built'),
            ({'drop_path_rate': 1}, 'drop_path_rate=1 .* below 1'),
            ({'drop_path_rate': -0.1}, 'drop_path_rate=-0.1'),
        ],
    ),
    DWNet: (
        {},
        [
            ({'arch': 'tinny'}, "Did you mean 'tiny'"),
            ({'dynamic': 'inhomogenous'}, "Did you mean 'inhomogeneous'"),
            ({'dynamic': 'true'}, 'homogeneous'),
            ({'token_mixer': 'localmlp'}, "Did you mean 'local_mlp'"),
            (
                {'dynamic': 'homogeneous', 'token_mixer': 'local_mlp'},
                'dynamic=None',
            ),
            ({'out_indices': (0, 4)}, '-1 is the last'),
            ({'out_indices': 0, 'final_norm': True}, 'leaves out the last'),
            ({'frozen_stages': 5}, 'out of range'),
            ({'window_size': 6}, 'use 7'),
            (
                {'dynamic': 'inhomogeneous', 'channels_per_group': 7},
                'nearest that does is 6',
            ),
            ({'channels_per_group': (3, 6)}, 'one for each of the 4 stages'),
        ],
    ),
    GMLP: (
        {'arch': 'tiny'},
        [
            ({'arch': 'smal'}, "Did you mean 'small'"),
            ({'arch': {'embed_dims': 8}}, 'drop_path_rate'),
            ({'out_indices': 30}, '0 to 29'),
            ({'out_indices': 3, 'frozen_stages': 5}, '4 everything'),
        ],
    ),
    DemoNet: (
        {},
        [
            ({'operation': 'mul'}, r"\['star', 'sum'\]"),
            ({'operation': 'sums'}, "Did you mean 'sum'"),
            ({'out_indices': (12,)}, '0 to 11'),
        ],
    ),
    StepNetResNet: (
        {'depth': 50},
        [
            ({'depth': 20}, 'depth=20 is not known'),
            ({'depth': 18, 'groups': 32}, 'groups=32 with depth=18'),
            ({'out_indices': (0, 4)}, r'=\(0, 4\) names .*\n.*0 to 3'),
            ({'frozen_stages': 5}, 'frozen_stages=5'),
            ({'stage_with_step': (True,)}, r'stage_with_step=\(True,\)'),
            ({'step_blocks': [[3], [0], [0], [0]]}, 'does not fit stages of'),
            ({'step_cfg': {'fusion': 'concatt'}}, "Did you mean 'concat'"),
        ],
    ),
    StepAdaptor: (
        {'in_channels': 64},
        [
            ({'inputs': 'curent'}, "Did you mean 'current'"),
            ({'fusion': 'concatenate'}, "Did you mean 'concat'"),
            ({'start': 'Paper'}, "Did you mean 'paper'"),
            ({'ratio': 0}, 'ratio=0'),
        ],
    ),
    SEAttention: ({'in_channels': 256}, [({'ratio': 0}, 'ratio=0')]),
    ECAAttention: (
        {'in_channels': 64},
        [
            ({'kernel_size': 4}, r'kernel_size=4 .*\n.*Use 5,'),
            ({'kernel_size': 0}, r'kernel_size=0 .*\n.*Use 1,'),
            ({'kernel_size': -3}, r'kernel_size=-3 .*\n.*Use 1,'),
        ],
    ),
    FCAAttention: (
        {'in_channels': 256},
        [
            ({'ratio': 0}, 'ratio=0'),
            ({'in_channels': 24}, '24 is not a multiple of 16'),
            ({'in_channels': 64}, 'dct_size=None for in_channels=64'),
            ({'dct_size': 0}, 'dct_size=0 for in_channels=256'),
        ],
    ),
    SimpleFeaturePyramid: (
        {'in_channels': 8},
        [
            ({'in_channels': 6}, 'multiple of 4'),
            ({'in_channels': [8, 16]}, 'one map'),
            ({'num_outs': 3}, '4 levels'),
        ],
    ),
    LocalMLP: (
        {'channels': 8, 'window_size': 7},
        [({'channels_per_group': 3}, 'channels_per_group=3')],
    ),
}


@pytest.mark.parametrize(
    ('model', 'wrong', 'message'),
    [
        pytest.param(model, wrong, message, id=f'{model.__name__}-{wrong}')
        for model, (_, cases) in WRONG.items()
        for wrong, message in cases
    ],
)
def test_wrong_arguments(model: type, wrong: dict, message: str) -> None:
    with torch.device('meta'), pytest.raises(UserError, match=message):
        model(**{**WRONG[model][0], **wrong})


@pytest.mark.parametrize('model', WRONG)
def test_an_unknown_argument_is_an_error(model: type) -> None:
    with pytest.raises(TypeError, match="unexpected .*'unknown'"):
        model(**WRONG[model][0], unknown=1)
