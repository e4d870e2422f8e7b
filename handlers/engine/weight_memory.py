"""What a model's weights really take in memory. transformers' ``get_memory_footprint`` counts torchao's tensors as if they were plain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from torch import Tensor, nn

from handlers.native.packed_linear import PackedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers; memory that several share counts once.

    Measure after the first forward pass: some libraries decompress their weights in it.
    """
    packed = sum(module.weight_bytes for module in model.modules() if isinstance(module, PackedLinear))
    parts = (part for tensor in chain(model.parameters(), model.buffers()) for part in _parts(tensor))
    return packed + sum({part.data_ptr(): part.nbytes for part in parts}.values())


def plain_bytes(model: PreTrainedModel) -> int:
    """Return what the same weights would take as plain numbers of the dtype that the model computes in."""
    packed = sum(module.in_features * module.out_features for module in model.modules() if isinstance(module, PackedLinear))
    itemsize: int = model.dtype.itemsize
    return itemsize * (packed + sum(_numel(parameter) for parameter in model.parameters()))


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors that a tensor is made of: torchao's subclasses hold several, and bitsandbytes' 4-bit ones have scales."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        yield from (part for name in names for part in _parts(getattr(tensor, name)))
        return
    yield tensor
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        yield from (part for part in state.as_dict().values() if isinstance(part, Tensor))


def _numel(parameter: Tensor) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
