# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What ``import mmext`` changes in the packages that it plugs into.

``import mmext`` imports none of these packages. Each change is made right
after the import of the module that it concerns, or at once if that module is
loaded already. docs/architecture.md lists the changes and their reasons.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmext import mmcv_ext

if TYPE_CHECKING:
    from mmengine.hooks import CheckpointHook
    from mmengine.infer.infer import BaseInferencer
    from mmengine.registry import Registry
    from mmengine.runner import Runner
    from torch import nn

#: Name of a root registry -> modules that register classes in it. MMEngine
#: imports the locations of a registry on the first look-up in it.
LOCATIONS = {
    'dataset': ['mmext.datasets.shapes.dataset'],
    'function': ['mmext.engine'],
    'hook': ['mmext.engine', 'mmext.regularizers'],
    'loop': ['mmext.engine'],
    'metric': [
        'mmext.datasets.shapes.dataset',
        'mmext.evaluation.coco.metric',
    ],
    'model': ['mmext.models', 'mmext.regularizers'],
    'optim_wrapper': ['mmext.engine'],
    'optimizer wrapper constructor': ['mmext.engine'],
    'runner': ['mmext.engine'],
    'transform': ['mmext.datasets.loading'],
}
#: Packages of the OneDL builds that print :data:`NOISE` if the optional
#: package onedl is not installed.
NOISY = ('mmdet.datasets', 'mmpretrain.datasets', 'mmseg.datasets')
NOISE = 'Could not import OneDL'
#: Beginnings of warnings that every import of the packages gives.
WARNINGS = (
    'faster_coco_eval is not installed',
    'pkg_resources is deprecated',
    'Default ``avg_non_ignore`` is False',
    'torch.meshgrid: in an upcoming release',
)
#: Logger -> beginning of a record on machines with nvcc and without a GPU.
RECORDS = {'torch.utils.cpp_extension': 'No CUDA runtime is found'}


def add_locations(module: ModuleType) -> None:
    """Adds our modules to the locations of MMEngine's root registries.

    A look-up in a child registry (mmdet's, for example) searches the root
    registry too, but MMEngine imports the locations of the child alone. The
    wrapper imports those of the root as well.

    Args:
        module: ``mmengine.registry``.
    """
    for registry in vars(module).values():
        ours = LOCATIONS.get(getattr(registry, 'name', None))
        if ours is not None:
            # A new list: registries without locations share one default.
            registry._locations = [*registry._locations, *ours]
            registry._imported = False
    import_own_locations = module.Registry.import_from_location

    def import_from_location(self: Registry) -> None:
        import_own_locations(self)
        if self.root is not self:
            import_own_locations(self.root)

    module.Registry.import_from_location = import_from_location


def name_scopes_by_module(module: ModuleType) -> None:
    """Makes ``mmseg::`` a valid config base with the OneDL builds.

    MMEngine looks for a distribution ``mmsegmentation``; OneDL's is called
    ``onedl-mmsegmentation``. The module is called ``mmseg`` in both.

    Args:
        module: ``mmengine.config.utils``.
    """
    from mmengine.utils import is_installed

    for name, package in module.MODULE2PACKAGE.items():
        if find_spec(name) is not None and not is_installed(package):
            module.MODULE2PACKAGE[name] = name


def read_checkpoints_safely(module: ModuleType) -> None:
    """Imports :mod:`mmext.checkpoints.load`, which replaces the loaders.

    Args:
        module: ``mmengine.runner.checkpoint``.
    """
    import mmext.checkpoints.load  # noqa: F401


def name_classes_by_id(module: ModuleType) -> None:
    """Makes ``CocoMetric`` name the AP of classes by their ids.

    Args:
        module: ``mmdet.evaluation``.
    """
    import mmext.evaluation.coco.metric  # noqa: F401


def keep_to_own_folder(module: ModuleType) -> None:
    """Makes ``CheckpointHook`` remove nothing outside its folder.

    The hook removes the best checkpoint that a resumed checkpoint names, a
    folder with all its content. In a copy of a run that is the original's.
    Here it names a file of that name in the hook's own folder.

    Args:
        module: ``mmengine.hooks.checkpoint_hook``.
    """
    hook_class = module.CheckpointHook
    before_train = hook_class.before_train

    def keep(hook: CheckpointHook, path: object, start: str) -> str | None:
        name = re.split(r'[/\\]', path)[-1] if isinstance(path, str) else ''
        if not (name.startswith(start) and name.endswith('.pth')):
            return None
        return hook.file_backend.join_path(hook.out_dir, name)

    def before_train_in_own_folder(
        self: CheckpointHook, runner: Runner
    ) -> None:
        info = runner.message_hub.runtime_info
        steps = info.get('keep_ckpt_ids')
        if steps is not None:  # they become file names
            steps = steps if isinstance(steps, list) else []
            info['keep_ckpt_ids'] = [s for s in steps if type(s) is int]
        before_train(self, runner)
        for key in [*info]:
            if re.match('best_ckpt(_|$)', key):
                info[key] = keep(self, info[key], 'best_')
        if 'last_ckpt' in info:
            info['last_ckpt'] = keep(self, info['last_ckpt'], '')
        if getattr(self, 'best_ckpt_path', None) is not None:
            self.best_ckpt_path = info.get('best_ckpt')
        for key in getattr(self, 'best_ckpt_path_dict', ()):
            self.best_ckpt_path_dict[key] = info.get(f'best_ckpt_{key}')

    hook_class.before_train = before_train_in_own_folder


def require_config_for_inference(module: ModuleType) -> None:
    """Makes MMEngine's inferencers not execute the config in a checkpoint.

    Args:
        module: ``mmengine.infer.infer``.
    """
    init_model = module.BaseInferencer._init_model

    def _init_model(
        self: BaseInferencer, cfg: Any, weights: str, device: str = 'cpu'
    ) -> nn.Module:
        from mmext.checkpoints.trust import is_trusted
        from mmext.errors import UserError

        if not cfg and not is_trusted(Path(weights)):
            raise UserError(
                f'{type(self).__name__} was given no config, and that of '
                f'{weights} is code, which is not executed',
                f"Name it: {type(self).__name__}(model='CONFIG.py', "
                f'weights={str(weights)!r}).',
            )
        return init_model(self, cfg, weights, device)

    module.BaseInferencer._init_model = _init_model


CHANGES: dict[str, Callable[[ModuleType], None]] = {
    'mmengine.registry': add_locations,
    'mmengine.hooks.checkpoint_hook': keep_to_own_folder,
    'mmengine.infer.infer': require_config_for_inference,
    'mmengine.config.utils': name_scopes_by_module,
    'mmengine.runner.checkpoint': read_checkpoints_safely,
    'mmdet.evaluation': name_classes_by_id,
}


class HostFinder(MetaPathFinder):
    """Finds the modules of :data:`CHANGES` and :data:`NOISY`.

    The spec is the one that the other finders return, with a loader that
    makes the change or removes the noise.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Returns the spec of a module, or None if we change nothing."""
        if fullname not in CHANGES and fullname not in NOISY:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                break
        else:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with _without_noise():
                execute(module)
            if fullname in CHANGES:
                CHANGES[fullname](module)

        spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if NOISE not in line:
                sys.stdout.write(line)


def install() -> None:
    """Makes the changes, now or later. Repeated calls do nothing."""
    if any(isinstance(finder, HostFinder) for finder in sys.meta_path):
        return
    mmcv_ext.install()
    for warning in WARNINGS:
        warnings.filterwarnings('ignore', warning)
    for logger, start in RECORDS.items():
        logging.getLogger(logger).addFilter(
            lambda record, start=start: not str(record.msg).startswith(start)
        )
    sys.meta_path.insert(0, HostFinder())
    for name, change in CHANGES.items():
        if name in sys.modules:
            change(sys.modules[name])
