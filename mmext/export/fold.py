# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Folds batch norms into the convolutions before them.

Which convolution is before a norm is observed while the model runs: the order
of the modules may be another one, and heads share convolutions among norms.
"""

from __future__ import annotations

import copy
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def folded(model: nn.Module, run: Callable[[nn.Module], object]) -> nn.Module:
    """Returns a copy of a model in evaluation mode with fewer norms.

    A norm is folded if all that it gets is what one convolution made, which
    feeds no other norm. timm's norms with an activation leave the activation.
    What else uses the map before the norm is not seen: compare the results.

    Args:
        model: It is not changed.
        run: Runs the model that it is given once.
    """
    model = copy.deepcopy(model)
    for norm, conv in _pairs(model, run):
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
            transpose=isinstance(conv, nn.ConvTranspose2d),
        )
        rest = nn.Identity()
        if _has_activation(norm):
            rest = nn.Sequential(norm.drop, norm.act)
        for name, module in [*model.named_modules(remove_duplicate=False)]:
            if module is norm:
                parent, _, child = name.rpartition('.')
                setattr(model.get_submodule(parent), child, rest)
    return model


def _pairs(
    model: nn.Module, run: Callable[[nn.Module], object]
) -> list[tuple[nn.Module, nn.Module]]:
    """Returns norms with the convolutions that they can be folded into."""
    # Id of a map -> its convolution, the map while it lives, and its sum.
    made: dict[int, tuple[nn.Module, weakref.ref, Tensor]] = {}
    calls: Counter[nn.Module] = Counter()
    sources, norms = defaultdict(set), defaultdict(set)

    def after_conv(conv: nn.Module, _: object, out: Tensor) -> None:
        calls[conv] += 1
        made[id(out)] = conv, weakref.ref(out), out.sum()

    def before_norm(norm: nn.Module, given: tuple) -> None:
        calls[norm] += 1
        conv, map_of, total = made.get(id(given[0]), (None, None, None))
        # Another map may have the id later, or an activation may have changed
        # this one in place.
        if conv and (map_of() is not given[0] or total != given[0].sum()):
            conv = None
        sources[norm].add(conv)
        norms[conv].add(norm)

    with ExitStack() as hooks:
        for module in model.modules():
            if _is_convolution(module):
                handle = module.register_forward_hook(after_conv)
                hooks.enter_context(handle)
            elif _is_foldable(module):
                handle = module.register_forward_pre_hook(before_norm)
                hooks.enter_context(handle)
        run(model)
    found = [
        (norm, conv) for norm, (conv, *more) in sources.items() if not more
    ]
    return [
        (norm, conv)
        for norm, conv in found
        if conv is not None
        and len(norms[conv]) == 1
        and calls[norm] == calls[conv]
    ]


def _is_convolution(module: nn.Module) -> bool:
    if isinstance(module, nn.ConvTranspose2d):
        return module.groups == 1  # PyTorch folds no others
    return isinstance(module, nn.Conv2d)


def _is_foldable(module: nn.Module) -> bool:
    plain = type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm)
    return (plain or _has_activation(module)) and (
        not module.training and module.running_mean is not None
    )


def _has_activation(module: nn.Module) -> bool:
    """Whether a module is timm's norm with an activation."""
    return isinstance(module, nn.BatchNorm2d) and (
        type(module).__name__ == 'BatchNormAct2d'
    )
