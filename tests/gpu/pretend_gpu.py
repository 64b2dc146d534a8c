# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A pretended GPU: tensors on the CPU that refuse to meet CPU tensors.

Importing this module registers the device ``pretend`` with PyTorch, for this
process and for good: run it in a process of its own. A tensor there holds a
CPU tensor and computes with it, so results equal those of the CPU to the last
bit, and loops, samplers and optimizers run as they are. An operation on
tensors of both devices raises where CUDA would raise, and reading a tensor
needs ``.cpu()``.

It cannot show what CUDA's kernels compute, ``is_cuda``, autocast to half
precision, NCCL, and the order of asynchronous work.
"""

from __future__ import annotations

from typing import Any, NoReturn, Union

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten

# CUDA accepts CPU tensors here.
COPIES = {aten.copy_, aten._to_copy}
# The indices of a GPU tensor may be on the CPU, but not the reverse.
INDEXING = {
    aten.index,
    aten.index_put,
    aten.index_put_,
    aten._index_put_impl_,
    aten._unsafe_index,
}
# A CPU tensor without dimensions is a number here and in pointwise operations.
NUMBERS = {
    aten.fill,
    aten.fill_,
    aten.index_fill,
    aten.index_fill_,
    aten.masked_fill,
    aten.masked_fill_,
}


class Backend(backend_registration._DummyBackendModule):
    """What ``torch.pretend`` has to have."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are the CPU's."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class PretendTensor(torch.Tensor):
    """A tensor on the device ``pretend``; ``held`` is its CPU tensor."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f'{self.held!r} on {DEVICE}'

    def tolist(self) -> list:
        return self.held.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "can't convert pretend device type tensor to numpy. Use "
            'Tensor.cpu() to copy the tensor to host memory first.'
        )

    __array__ = numpy


def hold(value: Any) -> Any:
    """Returns the CPU tensor of a tensor on the device."""
    return value.held if isinstance(value, PretendTensor) else value


def put(value: Any) -> Any:
    """Returns a tensor on the device that holds a CPU tensor."""
    is_plain = isinstance(value, Tensor) and not isinstance(
        value, PretendTensor
    )
    return PretendTensor(value) if is_plain else value


def run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Runs an operation that has at least one tensor on the device."""
    check_devices(func, args, kwargs)
    packet = func.overloadpacket
    inner = tree_map(hold, kwargs)
    leaves = False
    if inner.get('device') is not None:
        leaves = torch.device(inner['device']).type == 'cpu'
        inner['device'] = torch.device('cpu')
    out = func(*tree_map(hold, args), **inner)
    for value in tree_leaves((args, kwargs)):
        known = isinstance(value, PretendTensor)
        if known and value.shape != value.held.shape:
            raise RuntimeError(f'{func} resizes its output')
    if packet is aten.copy_ and not isinstance(args[0], PretendTensor):
        return args[0]
    if leaves:
        return out
    out = tree_map(put, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def check_devices(func: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    """Raises `RuntimeError` if CUDA would refuse these tensors together."""
    packet = func.overloadpacket
    if packet in COPIES:
        return
    values: Any = (args, kwargs)
    if packet in INDEXING and isinstance(args[0], PretendTensor):
        values = (args[0], args[2:], kwargs)  # not the indices
    tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor)]
    on_cpu = [t for t in tensors if not isinstance(t, PretendTensor)]
    scalars = (
        packet in NUMBERS
        or packet in INDEXING
        or torch.Tag.pointwise in func.tags
    )
    # An operation in place writes to the device of its input.
    writes = packet._qualified_op_name.endswith('_')
    if scalars and not (writes and not isinstance(args[0], PretendTensor)):
        on_cpu = [t for t in on_cpu if t.dim()]
    if on_cpu:
        shapes = [tuple(t.shape) for t in on_cpu]
        raise RuntimeError(
            'Expected all tensors to be on the same device, but '
            f'{func} got some on {DEVICE} and {shapes} on the CPU'
        )


def _allocate(library: torch.library.Library, name: str, make: Any) -> None:
    """Registers how memory of the device is allocated."""

    def allocate(*sizes: Any, dtype: Any = None, **options: Any) -> Tensor:
        form = options.get('memory_format')
        extra = {} if form is None else {'memory_format': form}
        return PretendTensor(make(*sizes, dtype=dtype, **extra))

    library.impl(name, allocate, 'PrivateUse1')


def _create(library: torch.library.Library, name: str, make: Any) -> None:
    """Registers a function that PyTorch would run on an empty output."""

    def create(*args: Any, dtype: Any = None, **options: Any) -> Tensor:
        generator = {k: v for k, v in options.items() if k == 'generator'}
        return PretendTensor(make(*args, dtype=dtype, **generator))

    library.impl(name, create, 'PrivateUse1')


def _copy_from(source: Tensor, target: Tensor, block: bool = False) -> Tensor:
    hold(target).copy_(hold(source))
    return target


class _OfDevice(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, PretendTensor) and value.dtype == cls.dtype


class PretendBool(metaclass=_OfDevice):
    dtype = torch.bool


class PretendLong(metaclass=_OfDevice):
    dtype = torch.long


def accept_as_index() -> None:
    """MMEngine lists the types of tensors that may be an index, by device."""
    from mmengine.structures import instance_data as module

    for name, kind in (
        ('BoolTypeTensor', PretendBool),
        ('LongTypeTensor', PretendLong),
    ):
        setattr(module, name, Union[getattr(module, name), kind])  # noqa: UP007
    module.IndexType = Union[module.IndexType, PretendBool, PretendLong]  # noqa: UP007


backend_registration._setup_privateuseone_for_python_backend(
    'pretend', backend_module=Backend()
)
DEVICE = torch.device('pretend:0')
# Module.to() then replaces parameters, which change their class here.
torch.__future__.set_overwrite_module_params_on_conversion(True)
# PyTorch allocates and fills tensors that no dispatch sees, as torch.tensor().
_library = torch.library.Library('aten', 'IMPL')
_allocate(_library, 'empty.memory_format', torch.empty)
_allocate(_library, 'empty_strided', torch.empty_strided)
for _name in ('arange', 'arange.start', 'arange.start_step'):
    _create(_library, _name, torch.arange)
for _name in ('eye', 'eye.m'):
    _create(_library, _name, torch.eye)
for _name in ('randperm', 'randperm.generator'):
    _create(_library, _name, torch.randperm)
_create(_library, 'linspace', torch.linspace)
_library.impl('_copy_from', _copy_from, 'PrivateUse1')
