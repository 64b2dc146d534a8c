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
    """What ``torch.pretend`` has to have; random numbers are the CPU's."""

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
    return PretendTensor(value) if isinstance(value, Tensor) else value


def run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Runs an operation that has at least one tensor on the device."""
    check_devices(func, args, kwargs)
    inner = tree_map(hold, kwargs)
    to_cpu = False
    if inner.get('device') is not None:
        to_cpu = torch.device(inner['device']).type == 'cpu'
        inner['device'] = torch.device('cpu')
    out = func(*tree_map(hold, args), **inner)
    for value in tree_leaves((args, kwargs)):
        if hasattr(value, 'held') and value.shape != value.held.shape:
            raise RuntimeError(f'{func} resizes its output')
    copies = func.overloadpacket is aten.copy_
    if copies and not isinstance(args[0], PretendTensor):
        return args[0]
    if to_cpu:
        return out
    return return_and_correct_aliasing(func, args, kwargs, tree_map(put, out))


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


def _copy_from(source: Tensor, target: Tensor, block: bool = False) -> Tensor:
    hold(target).copy_(hold(source))
    return target


class _OfDevice(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, PretendTensor) and value.dtype == cls.dtype


def accept_as_index() -> None:
    """MMEngine lists the types of tensors that may be an index, by device."""
    from mmengine.structures import instance_data as module

    for name, dtype in (
        ('BoolTypeTensor', torch.bool),
        ('LongTypeTensor', torch.long),
    ):
        kind = _OfDevice(name, (), {'dtype': dtype})
        for union in (name, 'IndexType'):
            setattr(module, union, Union[getattr(module, union), kind])  # noqa: UP007


def _create(name: str, make: Any) -> None:
    """Registers how PyTorch makes a tensor that no dispatch sees."""

    def create(*args: Any, dtype: Any = None, **options: Any) -> Tensor:
        kept = {
            key: options[key]
            for key in ('generator', 'memory_format')
            if options.get(key) is not None
        }
        return PretendTensor(make(*args, dtype=dtype, **kept))

    _library.impl(name, create, 'PrivateUse1')


backend_registration._setup_privateuseone_for_python_backend(
    'pretend', backend_module=Backend()
)
DEVICE = torch.device('pretend:0')
# Module.to() then replaces parameters, which change their class here.
torch.__future__.set_overwrite_module_params_on_conversion(True)
_library = torch.library.Library('aten', 'IMPL')
_library.impl('_copy_from', _copy_from, 'PrivateUse1')
for _make, _names in {
    torch.empty: ['empty.memory_format'],
    torch.empty_strided: ['empty_strided'],
    torch.arange: ['arange', 'arange.start', 'arange.start_step'],
    torch.eye: ['eye', 'eye.m'],
    torch.linspace: ['linspace'],
    torch.randperm: ['randperm', 'randperm.generator'],
}.items():
    for _name in _names:
        _create(_name, _make)
