# Licensed under the Apache License, Version 2.0. See LICENSE.
"""What ``import mmext`` changes in the packages that it plugs into.

Importing mmext imports none of these packages. Each change waits for the
import of the module that it concerns, and takes effect at once if that module
is loaded already. docs/architecture.md lists the changes with their reasons.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from mmext import mmcv_ext

#: Registry name -> modules that register their classes there. MMEngine
#: imports a registry's locations on the first look-up of any name in it.
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
    'runner': ['mmext.engine'],
}
#: A child registry does not import the locations of its parent, so that the
#: root registries alone are not enough.
REGISTRIES = (
    'mmengine.registry',
    'mmdet.registry',
    'mmseg.registry',
    'mmpretrain.registry',
)
#: Modules of the OneDL builds that print or warn about optional packages.
NOISY = (
    'mmdet.datasets',
    'mmdet.datasets.transforms',
    'mmdet.evaluation.metrics.faster_coco_metric',
    'mmpretrain.datasets',
    'mmseg.datasets',
    'mmseg.datasets.transforms',
)


class HostImports(MetaPathFinder):
    """Runs functions after the import of other packages' modules."""

    def __init__(self) -> None:
        self._after: dict[str, list[Callable]] = defaultdict(list)
        self._searching: set[str] = set()

    def after(self, name: str, action: Callable[[ModuleType], None]) -> None:
        """Calls ``action(module)`` once the module is imported.

        Args:
            name: Full name of the module.
            action: Called at once if the module is imported already.
        """
        if name in sys.modules:
            action(sys.modules[name])
        else:
            self._after[name].append(action)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Returns the spec that the other finders give, with our actions."""
        quiet = fullname in NOISY
        if not quiet and fullname not in self._after:
            return None
        if fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._searching.remove(fullname)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with _silence() if quiet else contextlib.nullcontext():
                execute(module)
            for action in self._after.pop(fullname, ()):
                action(module)

        spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _silence():
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        yield


def add_locations(module: ModuleType) -> None:
    """Adds our modules to the locations of a package's registries.

    Args:
        module: A module that holds registries, such as ``mmdet.registry``.
    """
    for registry in vars(module).values():
        ours = LOCATIONS.get(getattr(registry, 'name', None), ())
        if hasattr(registry, '_locations'):
            # A new list: registries without locations share their default.
            registry._locations = [*registry._locations, *ours]
            registry._imported = registry._imported and not ours


def name_scopes_by_module(module: ModuleType) -> None:
    """Makes ``mmseg::`` a config base of the OneDL builds.

    MMEngine looks for a distribution ``mmsegmentation``; OneDL's is called
    ``onedl-mmsegmentation``. The module is ``mmseg`` in both.

    Args:
        module: ``mmengine.config.utils``.
    """
    from mmengine.utils import is_installed

    for name, package in module.MODULE2PACKAGE.items():
        if (
            name != package
            and find_spec(name) is not None
            and not is_installed(package)
        ):
            module.MODULE2PACKAGE[name] = name


def read_checkpoints_safely(module: ModuleType) -> None:
    """Imports :mod:`mmext.checkpoints.read`, which replaces the loaders.

    Args:
        module: ``mmengine.runner.checkpoint``.
    """
    import mmext.checkpoints.read  # noqa: F401


def install() -> None:
    """Applies the changes; called by ``import mmext``."""
    mmcv_ext.install()
    imports = HostImports()
    sys.meta_path.insert(0, imports)
    for name in REGISTRIES:
        imports.after(name, add_locations)
    imports.after('mmengine.config.utils', name_scopes_by_module)
    imports.after('mmengine.runner.checkpoint', read_checkpoints_safely)
