# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Any model of timm as a backbone: convolutions, transformers, mixers.

timm builds the network, prunes what no output needs, and computes the maps
(``forward_intermediates``). What is here connects it with MMEngine: levels,
freezing, strict weights, and errors.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.registry import MODELS
from mmengine.utils import digit_version
from torch import Tensor, nn
from torch.nn.functional import pad

from mmext.errors import UserError, did_you_mean
from mmext.models.backbones.base_backbone import BaseBackbone

#: Earlier ones do not prune what no output needs, and fail without memory.
LEAST = '1.0.31'
#: Not a name in any model: timm's matchers put it beside the head.
HEAD = '\0'


@MODELS.register_module()
class TimmBackbone(BaseBackbone):
    """A model of timm, by its name there.

    Images (B, in_channels, H, W) become one map (B, C_i, H / stride_i,
    W / stride_i) for each of ``out_indices``. The state dict is timm's, under
    ``model.``. ``norm_eval``, ``with_cp`` (timm's gradient checkpointing) and
    ``init_cfg`` are those of :class:`BaseBackbone`; files with timm's names
    load, and those that timm's own conversion of the model knows.

    Args:
        name: As ``timm.list_models()`` has it, such as ``'convnext_tiny'``;
            with the tag of weights, such as ``'convnext_tiny.fb_in1k'``.
        out_indices: Features of timm to return, -1 is the last. Those of a
            plain model (ViT, Mixer) are its blocks. Default: the last one of
            each stride from 4 on.
        in_channels: Channels of the image. Default: 3.
        img_size: Size in pixels for which position embeddings and windows
            are built, one number or (height, width). Default: timm's.
        dynamic_img_size: Whether images may have any size, which Swin and
            most ViT allow; they are padded with zeros to multiples of the
            stride. Otherwise they have ``img_size``. Default: if the model
            allows it.
        final_norm: Whether timm applies the last norm to the outputs: to all
            of a ViT, to the last one of other models. Default: False.
        drop_path_rate: Rate of the last block. Default: timm's, mostly 0.
        frozen_stages: -1 freezes nothing, n the first n + 1 groups of timm's
            coarse ``group_matcher``: mostly 0 is the stem, and a stage of a
            plain model is a block. Default: -1.
        pretrained: Whether to load the weights that timm names, from the
            cache or the hub. Default: False.

    Raises:
        UserError: If timm is not installed, or has no such model, tag or
            option; if an image has a size that the model does not take.

    Example:
        >>> import torch
        >>> model = TimmBackbone('test_convnext').eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 64, 96))]
        [(1, 24, 16, 24), (1, 32, 8, 12), (1, 48, 4, 6), (1, 64, 2, 3)]
    """

    def __init__(
        self,
        name: str,
        out_indices: int | Sequence[int] | None = None,
        in_channels: int = 3,
        img_size: int | Sequence[int] | None = None,
        dynamic_img_size: bool | None = None,
        final_norm: bool = False,
        drop_path_rate: float | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        pretrained: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        _check_name(name)

        args: dict[str, Any] = {'in_chans': in_channels}
        full = _without_memory(name, args)
        if not hasattr(full, 'prune_intermediate_layers'):
            raise UserError(
                f'timm gives no features of {name} (no '
                'prune_intermediate_layers)',
                'Use another model; one of mmext has its own type, such as '
                "type='StarNet'.",
            )
        if pretrained:
            init_cfg = _pretrained(full, init_cfg)
        super().__init__(
            in_channels, frozen_stages, norm_eval, with_cp, init_cfg
        )
        self.name, self.model_args, self.final_norm = name, args, final_norm
        takes = _arguments(type(full))
        fixed = full.pretrained_cfg.get('fixed_input_size', False)
        if dynamic_img_size is None and 'dynamic_img_size' in takes:
            dynamic_img_size = True
        size = [img_size] * 2 if isinstance(img_size, int) else img_size
        for key, value in (
            ('img_size', size and tuple(size)),
            ('dynamic_img_size', dynamic_img_size or None),
            ('drop_path_rate', drop_path_rate),
        ):
            if value is not None and key not in takes:
                raise UserError(
                    f'{name} takes no {key}={value!r} ({type(full).__name__} '
                    'of timm)',
                    f'Remove {key}.',
                )
            if value is not None:
                args[key] = value
        size = size or full.pretrained_cfg['input_size'][1:]
        #: Height and width that images must have, or None.
        self.fixed_size = None
        if fixed and not dynamic_img_size:
            self.fixed_size = tuple(size)
        strides = [level['reduction'] for level in full.feature_info]
        channels = [level['num_chs'] for level in full.feature_info]
        if out_indices is None:
            last = {s: i for i, s in enumerate(strides) if s >= 4}
            out_indices = sorted(last.values())
        self.set_stages(out_indices, channels, strides)
        self.pads = bool(dynamic_img_size) or len(set(strides)) == 1
        self.model = self._create(max(strides))
        # Pruning changes the indices of some models.
        self.taken = self.model.prune_intermediate_layers(
            list(self.out_indices), prune_norm=not final_norm
        )
        # MMEngine would call its init_weights; timm has initialised it.
        self.model.is_init = True
        own = self.model.state_dict()
        self.pruned = {k for k in full.state_dict() if k not in own}
        self.groups = self._groups(coarse=True)
        last = self.groups.get(HEAD, 0)
        self.freezable = [f'group {i}' for i in range(last)]
        if with_cp:
            try:
                self.model.set_grad_checkpointing(True)
            except AssertionError as error:
                raise UserError(
                    f'with_cp=True: {name} of timm has no gradient '
                    'checkpointing',
                    'Remove with_cp, or use a smaller batch.',
                ) from error
        self.train()

    def _create(self, stride: int) -> nn.Module:
        """Returns the model after a trial if images have one given size."""
        import timm

        args = self.model_args
        size = args.get('img_size')
        try:
            model = timm.create_model(self.name, num_classes=0, **args)
            if size and self.fixed_size:
                image = torch.zeros(1, args['in_chans'], *size)
                with torch.no_grad():
                    model.eval().forward_intermediates(self._padded(image))
        except Exception as error:  # of many types
            if not size:
                raise
            cfg = _without_memory(self.name, {}).pretrained_cfg
            own = tuple(cfg['input_size'][1:])
            raise UserError(
                f'{self.name} of timm fails with img_size={size}: {error}',
                f'Use {own}, or other multiples of {stride}.',
            ) from error
        return model

    @property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and std of RGB pixels from 0 to 255 for timm's weights."""
        cfg = self.model.pretrained_cfg
        mean, std = ([255 * v for v in cfg[key]] for key in ('mean', 'std'))
        return mean, std

    @property
    def weights_hint(self) -> str:
        """What a user should check if a checkpoint does not fit."""
        return (
            f'Give weights of {self.name}, or the name of the model of these'
        )

    def levels(self, x: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(
            self._padded(x),
            indices=self.taken,
            norm=self.final_norm,
            output_fmt='NCHW',
            intermediates_only=True,
        )

    def _padded(self, x: Tensor) -> Tensor:
        """Adds zeros at the right and below, so that no pixel is lost."""
        bottom, right = (-n % max(self.strides) for n in x.shape[2:])
        return pad(x, (0, right, 0, bottom)) if self.pads else x

    def check_input(self, x: Tensor) -> None:
        """Raises `UserError` for images that the model cannot take."""
        super().check_input(x)
        if torch.jit.is_tracing() or self.fixed_size is None:
            return
        if tuple(x.shape[2:]) != self.fixed_size:
            height, width = self.fixed_size
            raise UserError(
                f'{self.name} takes images of {height}x{width} pixels only, '
                f'and got {x.size(2)}x{x.size(3)}.',
                f'Resize and pad all images to {height}x{width}, or build it '
                f'with img_size={tuple(x.shape[2:])}.',
            )

    def released_tensors(self, tensors: dict[str, Tensor]) -> dict:
        """Returns tensors after the conversion that timm's module has."""
        full = _without_memory(self.name, self.model_args)
        tensors = {k.removeprefix('model.'): v for k, v in tensors.items()}
        module = vars(sys.modules[type(full).__module__])
        convert = module.get('checkpoint_filter_fn', module.get('_filter_fn'))
        if convert is not None:
            # Of another model it may fail; the names then say what is wrong.
            with suppress(Exception):
                tensors = convert(dict(tensors), full)
        return tensors

    def released_key(self, key: str) -> str | None:
        """Drops what was pruned, and the classifier."""
        return None if key in self.pruned else f'model.{key}'

    def layer_depths(self) -> tuple[dict[str, int], int]:
        """Returns the depth of each parameter, from timm's groups."""
        groups = self._groups(coarse=False)
        if not groups:
            raise UserError(
                f'timm says no layers of {self.name} (group_matcher)',
                'Train it without the decay of learning rates by layers.',
            )
        names = (name for name, _ in self.model.named_parameters())
        depths = {f'model.{name}': groups[name] for name in names}
        return depths, groups[HEAD]

    def _groups(self, coarse: bool) -> dict[str, int]:
        """Returns the group of each parameter, by timm's names, and HEAD."""
        from timm.models import group_parameters

        if not hasattr(self.model, 'group_matcher'):
            return {}
        try:
            matcher = self.model.group_matcher(coarse=coarse)
        except AssertionError:  # RDNet has one kind of groups
            matcher = self.model.group_matcher()
        named = [*self.model.named_parameters(), (HEAD, None)]
        holder = SimpleNamespace(named_parameters=lambda: named)
        return group_parameters(holder, matcher, reverse=True)

    def _frozen_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, param in self.model.named_parameters():
            if self.groups.get(name, 0) <= self.frozen_stages:
                yield f'model.{name}', param

    def _frozen(self) -> list[str]:
        """Returns the modules all of whose parameters are frozen."""
        frozen = dict(self._frozen_parameters())
        found = []
        for name, module in self.named_modules():
            params = [f'{name}.{key}' for key, _ in module.named_parameters()]
            if name and params and frozen.keys() >= set(params):
                found.append(name)
        return found


def _without_memory(name: str, args: dict[str, Any]) -> nn.Module:
    """Returns a model of timm, not pruned, whose tensors have no values."""
    import timm

    with torch.device('meta'):
        return timm.create_model(name, **args)


def _arguments(cls: type) -> set[str]:
    """Returns the arguments of a class and, by ``**kwargs``, of its bases."""
    return {
        name
        for base in cls.__mro__
        if '__init__' in vars(base)
        for name in inspect.signature(base.__init__).parameters
    }


def _check_name(name: str) -> None:
    """Raises `UserError` if timm has no such model, or no such weights."""
    try:
        import timm
        from timm.models import get_arch_pretrained_cfgs

        found = timm.__version__
    except ImportError:
        found = '0'
    if digit_version(found) < digit_version(LEAST):
        raise UserError(
            f'TimmBackbone needs timm {LEAST} or later, and '
            + (f'{found} is installed' if found > '0' else 'it is missing'),
            f"pip install 'timm>={LEAST}'",
        )
    arch, _, tag = name.partition('.')
    if not timm.is_model(arch):
        near = did_you_mean(arch, timm.list_models())
        raise UserError(
            f'timm {timm.__version__} has no model {arch!r}',
            near or "timm.list_models('*vit*') finds names.",
        )
    tags = [cfg.split('.', 1)[-1] for cfg in get_arch_pretrained_cfgs(arch)]
    if tag and tag not in tags:
        raise UserError(
            f'timm {timm.__version__} has no weights {tag!r} of {arch}',
            did_you_mean(tag, tags) or f'It has: {", ".join(tags)}.',
        )


def _pretrained(full: nn.Module, init_cfg: Any) -> dict[str, str]:
    """Returns the ``init_cfg`` of the weights that timm names."""
    cfg = full.pretrained_cfg
    if init_cfg is not None:
        raise UserError(
            f'TimmBackbone got pretrained=True and init_cfg={init_cfg}',
            'Give one of them.',
        )
    source = f'hf-hub:{cfg["hf_hub_id"]}' if cfg.get('hf_hub_id') else ''
    if cfg.get('custom_load') or not (source or cfg.get('url')):
        raise UserError(
            f'timm has no weights of {cfg["architecture"]} that mmext reads',
            'Set pretrained=False, or name a file: init_cfg=dict('
            "type='Pretrained', checkpoint=FILE).",
        )
    return {'type': 'Pretrained', 'checkpoint': source or cfg['url']}
