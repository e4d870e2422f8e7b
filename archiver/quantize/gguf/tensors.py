"""A checkpoint's tensors under GGUF's names, read and encoded one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGML_QUANT_SIZES, MODEL_ARCH_NAMES, GGMLQuantizationType, get_tensor_name_map
from gguf.quants import quantize

from archiver.errors import ArchiverError, UsageError
from archiver.quantize.gguf.families import Family
from archiver.quantize.gguf.file_types import tensor_type

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_HEAD = "lm_head.weight"
_EMBEDDINGS = "model.embed_tokens.weight"


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file to be: ``name`` and ``type`` there, ``source`` in the checkpoint, ``shape`` in both.

    ``interleaved_heads``: the number of heads whose rows change places (see Family); 0: none do. ``offset`` is added to the values.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    interleaved_heads: int = 0
    offset: float = 0.0

    @property
    def num_bytes(self) -> int:
        """The size of its data in the file."""
        block, block_bytes = GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.shape)) // block * block_bytes


def plan_tensors(config: Any, family: Family, file_type: str) -> list[PlannedTensor]:
    """Return the tensors of the model that a transformers configuration describes; raise UsageError if GGUF has no place for one."""
    (architecture,) = (arch for arch, name in MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    shapes = _shapes(config)
    output = _HEAD if _HEAD in shapes else _EMBEDDINGS
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads} if family.interleaves_rotary else {}
    planned = []
    for source, shape in shapes.items():
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UsageError(f"llama.cpp's {family.architecture} has no place for {source}: this model differs from its family")
        planned.append(
            PlannedTensor(
                name, source, shape, tensor_type(file_type, shape, is_output=source == output),
                interleaved_heads=heads.get(source.split(".")[-2], 0),
                offset=family.norm_offset if source.endswith("norm.weight") else 0.0,
            )
        )  # fmt: skip
    return planned


def check_names(planned: list[PlannedTensor], stored: Mapping[str, Tensor]) -> None:
    """Raise ArchiverError if the checkpoint lacks a tensor."""
    if missing := [tensor.source for tensor in planned if tensor.source not in stored]:
        raise ArchiverError(f"the checkpoint lacks {len(missing)} tensors of its model, {missing[0]} for one")


def encode(tensor: PlannedTensor, stored: Mapping[str, Tensor]) -> NDArray[Any]:
    """Return a tensor's data as the file has it; raises ArchiverError for a tensor that is not what the configuration says."""
    source = stored[tensor.source]
    if tuple(source.shape) != tensor.shape or not source.is_floating_point() or source.itemsize == 1:
        got = f"{tuple(source.shape)} of {source.dtype}".replace("torch.", "")
        raise ArchiverError(f"{tensor.source} should be {tensor.shape} of plain numbers by config.json, and is {got}")
    values = source.float().numpy()
    if tensor.interleaved_heads:
        values = interleave_rows(values, tensor.interleaved_heads)
    if tensor.offset:
        values = values + np.float32(tensor.offset)
    with np.errstate(over="ignore"):
        encoded: NDArray[Any] = quantize(np.ascontiguousarray(values), tensor.type)
    if encoded.dtype.kind == "f" and not np.isfinite(encoded).all():
        raise ArchiverError(f"{tensor.source} has values that {tensor.type.name} cannot hold; take BF16 or F32")
    return encoded


def interleave_rows(rows: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """Let the rows of each head's second half alternate with those of its first: 0 1 2 3 become 0 2 1 3. ``rows``: (heads · size, …)."""
    halves = rows.reshape(num_heads, 2, rows.shape[0] // num_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _shapes(config: Any) -> Mapping[str, tuple[int, ...]]:
    """The tensors that transformers would load, by name; tied ones once. The model is built without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes[_HEAD]
    return shapes
