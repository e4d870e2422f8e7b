"""A Runner that computes a whole step in one call of C (decoder.c): Llama-like models in bfloat16 on processors with AVX512-BF16."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from handlers import native
from handlers.engine.decoder_parts import DecoderParts, LayerParts
from handlers.engine.scheduler import StepPlan
from handlers.native.library import load_library

_SOURCE = Path(native.__file__).with_name("decoder.c")
_BLOCK = 16
_PANEL = 32
_MAX_HEAD_DIM = 256

_Int, _Float, _Pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Pointer) for name in ("qkv", "output", "gate_up", "down", "input_norm", "post_norm")),
        *((name, _Pointer) for name in ("qkv_bias", "query_norm", "key_norm", "keys", "values")),
        ("window", _Int),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, _Int) for name in ("num_layers", "hidden", "num_heads", "num_kv_heads", "head_dim", "intermediate", "vocab_size")),
        ("num_threads", _Int),
        *((name, _Float) for name in ("norm_eps", "attention_scale")),
        *((name, _Pointer) for name in ("embedding", "head", "final_norm", "cosines", "sines", "layers")),
        *((name, _Pointer) for name in ("residual", "qkv", "normed", "queries", "attended", "activated")),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, _Int) for name in ("num_rows", "num_chunks", "num_samples")),
        *((name, _Pointer) for name in ("token_ids", "positions", "row_chunks", "chunks", "block_table", "samples", "logits")),
    ]


class NativeRunner:
    """Owns packed copies of the weights: the modules that they come from are not needed any more. See ``fits`` for what it can run."""

    def __init__(self, parts: DecoderParts, *, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.max_model_len: int = parts.cosines.shape[0]
        self.vocab_size: int = parts.embedding.shape[0]
        library = _library()
        assert library is not None, "fits() comes first"
        self._step = library.marquee_step
        self._tensors: list[Tensor] = []  # whatever the structs point to
        block_elements = parts.num_kv_heads * parts.head_dim * _BLOCK
        # Not zeroed: memory becomes real when a block is first written to.
        self._cache = torch.empty(len(parts.layers), 2, num_blocks, block_elements, dtype=torch.bfloat16)
        self._layers = (_Layer * len(parts.layers))(*(self._layer(parts, layer, i) for i, layer in enumerate(parts.layers)))
        self._model = self._pack(parts)
        self._workspace: list[Tensor] = []
        self._num_workspace_rows = 0
        self._logits = torch.empty(0, self._model.vocab_size)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> Tensor:
        """Compute a step; see Runner. The next one writes its logits to the same memory: fresh pages cost a millisecond for 32 rows."""
        chunks = plan.chunks
        rows = sum(len(chunk.token_ids) for chunk in chunks)
        self._make_room(rows)
        table: list[int] = []
        specs: list[int] = []  # four numbers a chunk
        first_row = 0
        samples: list[int] = []
        for chunk in chunks:
            specs += (first_row, len(chunk.token_ids), chunk.start, len(table))
            table += chunk.block_ids[: -(-chunk.end // _BLOCK)]
            first_row += len(chunk.token_ids)
            if chunk.samples:
                samples.append(first_row - 1)
        if len(samples) > len(self._logits):
            self._logits = torch.empty(len(samples), self._model.vocab_size)
        arrays = {
            "token_ids": _array(token_id for chunk in chunks for token_id in chunk.token_ids),
            "positions": _array(position for chunk in chunks for position in range(chunk.start, chunk.end)),
            "row_chunks": _array(index for index, chunk in enumerate(chunks) for _ in chunk.token_ids),
            "chunks": _array(specs),
            "block_table": _array(table),
            "samples": _array(samples),
            "logits": self._logits,
        }
        pointers = {name: array.data_ptr() for name, array in arrays.items()}
        self._model.num_threads = torch.get_num_threads()
        step = _Step(num_rows=rows, num_chunks=len(chunks), num_samples=len(samples), **pointers)
        self._step(ctypes.byref(self._model), ctypes.byref(step))
        return self._logits[: len(samples), : self.vocab_size]

    def reset(self) -> None:
        """Forget all sequences; see Runner. What they left is never read: zeroing it would only make untouched memory real."""

    def _pack(self, parts: DecoderParts) -> _Model:
        half = parts.head_dim // 2
        head = _padded(_weight(parts.head))
        return _Model(
            num_layers=len(parts.layers),
            hidden=parts.embedding.shape[1],
            num_heads=parts.num_heads,
            num_kv_heads=parts.num_kv_heads,
            head_dim=parts.head_dim,
            intermediate=_weight(parts.layers[0].down).shape[1],
            vocab_size=len(head),
            norm_eps=parts.norm_eps,
            attention_scale=parts.layers[0].scoring.scale or parts.head_dim**-0.5,
            embedding=self._keep(parts.embedding.data),
            head=self._keep(_tiles(head)),
            final_norm=self._keep(parts.final_norm.float()),
            cosines=self._keep(parts.cosines[:, :half]),
            sines=self._keep(parts.sines[:, :half]),
            layers=ctypes.addressof(self._layers),
        )

    def _layer(self, parts: DecoderParts, layer: LayerParts, index: int) -> _Layer:
        gate, up = torch.cat([_weight(module) for module in layer.gate_up]).chunk(2)
        biases = [module.get_parameter("bias").data for module in layer.qkv if module.bias is not None]
        return _Layer(
            qkv=self._keep(_tiles(torch.cat([_weight(module) for module in layer.qkv]))),
            output=self._keep(_tiles(_weight(layer.output))),
            gate_up=self._keep(torch.stack((_tiles(gate), _tiles(up)), dim=1)),
            down=self._keep(_tiles(_weight(layer.down))),
            input_norm=self._keep(layer.input_norm.float()),
            post_norm=self._keep(layer.post_norm.float()),
            qkv_bias=self._keep(torch.cat(biases).float()) if biases else None,
            query_norm=None if layer.query_norm is None else self._keep(layer.query_norm.float()),
            key_norm=None if layer.key_norm is None else self._keep(layer.key_norm.float()),
            keys=self._cache[index, 0].data_ptr(),
            values=self._cache[index, 1].data_ptr(),
            window=layer.scoring.window or 0,
        )

    def _keep(self, tensor: Tensor) -> int:
        self._tensors.append(tensor.contiguous())
        return self._tensors[-1].data_ptr()

    def _make_room(self, rows: int) -> None:
        """Have a workspace for ``rows``, rounded up to whole panels."""
        if rows <= self._num_workspace_rows:
            return
        model, rows = self._model, -(-rows // _PANEL) * _PANEL
        heads_width = model.num_heads * model.head_dim
        sizes = {
            "residual": (model.hidden, torch.float32),
            "qkv": (heads_width + 2 * model.num_kv_heads * model.head_dim, torch.float32),
            "normed": (model.hidden, torch.bfloat16),
            "queries": (heads_width, torch.bfloat16),
            "attended": (heads_width, torch.bfloat16),
            "activated": (model.intermediate, torch.bfloat16),
        }
        self._workspace = [torch.zeros(rows, width, dtype=dtype) for width, dtype in sizes.values()]
        for name, tensor in zip(sizes, self._workspace, strict=True):
            setattr(model, name, tensor.data_ptr())
        self._num_workspace_rows = rows


def fits(parts: DecoderParts, block_tokens: int) -> bool:
    """Whether this machine and the kernels can run a decoder: plain linear modules in bfloat16, widths in whole tiles, no soft cap."""
    first = parts.layers[0]
    linears = [module for layer in parts.layers for module in (*layer.qkv, layer.output, *layer.gate_up, layer.down)]
    if not all(type(module) is nn.Linear and module.weight.dtype == torch.bfloat16 for module in (*linears, parts.head)):
        return False
    widths = [size for module in linears[: len(linears) // len(parts.layers)] for size in _weight(module).shape]
    return (
        parts.embedding.dtype == torch.bfloat16
        and parts.embedding.device.type == "cpu"
        and block_tokens == _BLOCK
        and all(module.bias is None for layer in parts.layers for module in (layer.output, *layer.gate_up, layer.down))
        and getattr(parts.head, "bias", None) is None
        and all(width % _PANEL == 0 for width in widths)
        and parts.head_dim % _BLOCK == 0
        and parts.head_dim <= _MAX_HEAD_DIM
        and all(layer.scoring.softcap is None and layer.scoring.scale == first.scoring.scale for layer in parts.layers)
        and _library() is not None
    )


@functools.cache
def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux" or "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        return None
    library = load_library(_SOURCE)
    if library is None or library.marquee_prepare() != 0:
        return None
    library.marquee_step.argtypes = [_Pointer, _Pointer]
    library.marquee_step.restype = None
    return library


def _weight(module: nn.Module) -> Tensor:
    return module.get_parameter("weight").data


def _padded(weight: Tensor) -> Tensor:
    """Add zero rows up to a whole panel."""
    return nn.functional.pad(weight, (0, 0, 0, -len(weight) % _PANEL))


def _tiles(weight: Tensor) -> Tensor:
    """Return ``(columns, inputs)`` as ``(columns / 16, inputs / 2, 16, 2)``: see decoder.c."""
    columns, inputs = weight.shape
    return weight.view(columns // _BLOCK, _BLOCK, inputs // 2, 2).transpose(1, 2).contiguous()


def _array(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64)
