"""An accelerator that is pretended, to see on any machine what is on it and what is not.

Tensors on it are CPU tensors in disguise. What torch refuses of a real one is refused here: an
operation on tensors of two devices, and numpy. It is neither fast nor slow, and records nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

THERE = torch.device("meta")
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Disguised(Tensor):
    """A tensor that says it is there."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Disguised:
        return Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=THERE
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"Disguised({self.inner})"

    def tolist(self) -> list:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


def bare(value):
    """What a tensor is in truth; anything else as it is."""
    return value.inner if isinstance(value, Disguised) else value


def run(operation, args, kwargs):
    """As torch would with this device."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    disguised = [isinstance(tensor, Disguised) for tensor in tensors]
    if any(disguised) and operation not in COPIES:
        for tensor, is_there in zip(tensors, disguised):
            # Numbers may come from the CPU, and so may indices.
            is_index = not tensor.is_floating_point() and "index" in str(operation)
            if not is_there and tensor.dim() > 0 and not is_index:
                raise RuntimeError(f"{operation}: tensors on two devices")
    goes_there = any(disguised)
    if kwargs.get("device") is not None:
        goes_there = torch.device(kwargs["device"]) == THERE
        kwargs = kwargs | {"device": torch.device("cpu")}
    found = operation(*tree_map(bare, args), **tree_map(bare, kwargs))
    written = [of for of in operation._schema.returns if of.alias_info and of.alias_info.is_write]
    if written:
        return kwargs["out"] if "out" in kwargs else args[0]
    wrap = Disguised if goes_there else (lambda tensor: tensor)
    return tree_map(lambda value: wrap(value) if isinstance(value, Tensor) else value, found)


class Watch(TorchDispatchMode):
    """Sees operations on no tensor that is there, which may be the ones that make one."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


@contextmanager
def a_pretended_accelerator() -> Iterator[torch.device]:
    """While it is there, its device."""
    with torch.no_grad(), Watch():
        yield THERE
