# Licensed under the Apache License, Version 2.0. See LICENSE.
"""How images travel from a loader's worker to the training process.

PyTorch opens a new file of shared memory for every tensor, such as the boxes
and the labels of an image, and pickles the arrays of masks. The system fills
each new page with zeros, and both processes have to map it. Here, small
tensors are part of the message. Images and masks are copied into buffers that
the worker uses again after the training process has dropped what was in them.
The size of /dev/shm is no limit.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from multiprocessing.reduction import DupFd, ForkingPickler
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader

#: Bytes. Messages go through a pipe, which holds 64 KiB on Linux.
SMALL = 16 * 1024
#: The first byte of a buffer says whether it is free. Data are aligned.
HEADER = 64
FREE, USED = 0, 1
#: Process and number of a buffer -> its memory, in the receiving process.
_mapped: dict[tuple[int, int], mmap.mmap] = {}
#: Those of this process, if it is a worker.
_buffers: Buffers | None = None


def send_compactly(loader: DataLoader) -> None:
    """Changes how the workers of a loader send tensors, on Linux."""
    if hasattr(os, 'memfd_create'):
        loader.worker_init_fn = partial(_start, loader.worker_init_fn)


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Returns an array. A worker need not copy it when it sends it."""
    if _buffers is None:
        return np.empty(shape, dtype)
    return _buffers.empty(shape, dtype)


def _start(init: Callable[[int], None] | None, worker_id: int) -> None:
    global _buffers
    _buffers = Buffers()
    ForkingPickler.register(torch.Tensor, _buffers.reduce_tensor)
    ForkingPickler.register(np.ndarray, _buffers.reduce_array)
    if init is not None:
        init(worker_id)


class Buffers:
    """Memory of a worker, which the receiver of its messages maps."""

    def __init__(self) -> None:
        # Images are loaded in one thread and sent in another.
        self._lock = Lock()
        self._memory: list[mmap.mmap] = []
        #: Address -> number of a buffer.
        self._numbers: dict[int, int] = {}
        #: Buffers that arrays of this process are in.
        self._arrays: WeakValueDictionary[int, np.ndarray] = (
            WeakValueDictionary()
        )
        #: Files of buffers that the receiver does not know yet.
        self._files: dict[int, DupFd] = {}

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Returns an array in a free buffer."""
        size = prod(shape)
        with self._lock:
            number = self._free(HEADER + size * dtype.itemsize)
            flat = np.frombuffer(self._memory[number], dtype, size, HEADER)
            self._arrays[number] = flat
        self._numbers[flat.ctypes.data] = number
        return flat.reshape(shape)

    def reduce_tensor(self, tensor: torch.Tensor) -> Any:
        """Returns a function that builds a tensor again, and its arguments.

        Tensors that NumPy does not have, that have a gradient or are shared
        already are left to PyTorch.
        """
        try:
            if not tensor.is_shared():
                return torch.from_numpy, (tensor.numpy(),)  # is reduced next
        except (RuntimeError, TypeError):
            pass
        return reduce_tensor(tensor)

    def reduce_array(self, array: np.ndarray) -> Any:
        """Does the same for an array. Small ones are pickled."""
        if array.nbytes <= SMALL or array.dtype.hasobject:
            return array.__reduce__()
        # The axes from the outermost one.
        order = sorted(range(array.ndim), key=lambda i: -array.strides[i])
        dense = array.transpose(order)
        if not dense.flags.c_contiguous:  # a part of another array
            dense = np.ascontiguousarray(dense)
        # Once: a second receiver would free the buffer of the first one.
        number = self._numbers.pop(dense.ctypes.data, None)
        if number not in self._arrays:
            copied = self.empty(dense.shape, dense.dtype)
            np.copyto(copied, dense)
            number = self._numbers.pop(copied.ctypes.data)
        self._memory[number][0] = USED
        file = self._files.pop(number, None)
        layout = array.dtype, dense.shape, np.argsort(order)
        return _receive, (os.getpid(), number, file, *layout)

    def _free(self, size: int) -> int:
        """Returns the number of the smallest buffer that is free."""
        fitting = [
            (len(memory), number)
            for number, memory in enumerate(self._memory)
            if memory[0] == FREE
            and number not in self._arrays
            and len(memory) >= size
        ]
        if fitting:
            return min(fitting)[1]
        number = len(self._memory)
        file = os.memfd_create('mmext')
        # Powers of two, so that images of other sizes fit too.
        os.truncate(file, 1 << (size - 1).bit_length())
        self._memory.append(mmap.mmap(file, 0))
        self._files[number] = DupFd(file)
        os.close(file)
        return number


def _receive(
    process: int,
    number: int,
    fd: DupFd | None,
    dtype: np.dtype,
    shape: Sequence[int],
    axes: Sequence[int],
) -> np.ndarray:
    """Returns an array in a buffer, which is free as soon as it is dropped."""
    if fd is not None:
        alive = {worker.pid for worker in multiprocessing.active_children()}
        for key in [key for key in _mapped if key[0] not in alive]:
            del _mapped[key]
        file = fd.detach()
        _mapped[process, number] = mmap.mmap(file, 0)
        os.close(file)
    memory = _mapped[process, number]
    flat = np.frombuffer(memory, dtype, prod(shape), HEADER)
    # The base of all views, of tensors too.
    weakref.finalize(flat, memory.__setitem__, 0, FREE).atexit = False
    return flat.reshape(shape).transpose(axes)
