# Licensed under the Apache License, Version 2.0. See LICENSE.
"""Where a backbone comes from: a config, or a module with its class."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmext.errors import UserError
from mmext.models.build import build_model
from mmext.utils.config import load_config, merge_options, parse_options
from mmext.utils.random_state import random_state_kept, seed_everything
from mmext.utils.text import some


@dataclass(frozen=True)
class Source:
    """Where a backbone comes from; processes can build it from this.

    ``source`` is a config file, or a Python file or module with a class
    (``tinynet.py``, ``package.module:Class``).
    ``options`` are ``KEY=VALUE``, for the config or for the class.
    """

    source: str
    options: tuple[str, ...] = ()

    def read(self) -> tuple[dict[str, Any], Config | None]:
        """Returns the config of the backbone, and the config around it."""
        name, _, wanted = self.source.partition(':')
        path = Path(name)
        if path.suffix == '.py' and not (path.is_file() and _is_code(path)):
            cfg = load_config(path, self.options)
            init_default_scope(cfg.get('default_scope') or 'mmdet')
            model = cfg.get('model') or {}
            backbone = model.get('detector', model).get('backbone')
            if backbone is None:
                raise UserError(
                    f'config {path} has no model.backbone',
                    'Give the config of a detector, segmentor or classifier, '
                    'or a module with a backbone.',
                )
            return dict(backbone), cfg
        init_default_scope('mmdet')
        settings = Config({'type': self._find_class(name, wanted)})
        merge_options(settings, parse_options(self.options))
        return dict(settings._cfg_dict), None

    def _find_class(self, name: str, wanted: str) -> type[nn.Module]:
        path = Path(name)
        if path.suffix == '.py':
            sys.path.insert(0, str(path.resolve().parent))
            name = path.stem
        try:
            module = import_module(name)
        except ImportError as error:
            raise UserError(
                f'{self.source} is no config and no module that can be '
                f'imported: {error}',
                'Give FILE.py, or a module whose folder is in PYTHONPATH, '
                'such as mmext.models:StarNet.',
            ) from error
        classes = {
            key: value
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, nn.Module)
        }
        own = [k for k, v in classes.items() if v.__module__ == name]
        if not (own or wanted in classes):
            raise UserError(
                f'{name} has no torch.nn.Module',
                'Give the module that defines the backbone.',
            )
        names = [key for key in own if key in MODELS.module_dict] or own
        if not wanted and len(names) == 1:
            return classes[names[0]]
        if wanted not in classes:
            found = f'no class {wanted!r}' if wanted else 'several backbones'
            raise UserError(
                f'{name} has {found}',
                f'Name one of: {some(names, 20)}, as '
                f'{self.source.partition(":")[0]}:CLASS.',
            )
        return classes[wanted]

    def build(self, **changes: Any) -> nn.Module:
        """Builds the backbone, always with the same weights.

        No pre-trained weights are loaded: they change no property.
        """
        cfg, _ = self.read()
        with random_state_kept():
            seed_everything(0)
            return build_model({**cfg, **changes})


def _is_code(path: Path) -> bool:
    """Whether a Python file defines a class, which no config does."""
    try:
        body = ast.parse(path.read_text(encoding='utf-8')).body
    except SyntaxError:
        return False
    return any(isinstance(node, ast.ClassDef) for node in body)
