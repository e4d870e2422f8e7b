"""A Runner that computes a whole step in one call of C (decoder.c): Llama-like models in bfloat16 on processors with AVX512-BF16."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor, nn

from handlers.engine.decoder_parts import DecoderParts, LayerParts
from handlers.engine.scheduler import StepPlan
from handlers.native.huge_pages import HugePages
from handlers.native.library import load_kernels
from handlers.native.packed_linear import PackedLinear
from handlers.native.packed_matrix import MatrixStruct, PackedMatrix

_BLOCK = 16
_PANEL = 32
_MAX_HEAD_DIM = 256

_Int, _Float, _Pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class _Scratch(ctypes.Structure):
    _fields_ = [("memory", _Pointer), ("stride", _Int), ("sums", _Pointer)]


class _Layer(ctypes.Structure):
    _fields_ = [
        ("qkv", MatrixStruct * 3),
        *((name, MatrixStruct) for name in ("output", "gate", "up", "down")),
        ("num_qkv", _Int),
        *((name, _Pointer) for name in ("input_norm", "post_norm")),
        *((name, _Pointer) for name in ("qkv_bias", "query_norm", "key_norm", "keys", "values")),
        ("window", _Int),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, _Int) for name in ("num_layers", "hidden", "num_heads", "num_kv_heads", "head_dim", "intermediate", "num_threads")),
        *((name, _Float) for name in ("norm_eps", "attention_scale")),
        ("embedding", _Pointer),
        ("head", MatrixStruct),
        *((name, _Pointer) for name in ("final_norm", "cosines", "sines", "layers")),
        *((name, _Pointer) for name in ("residual", "qkv", "normed", "queries", "attended", "activated")),
        ("ordered", _Pointer),
        ("scratch", _Scratch),
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
        library = load_kernels("decoder")
        assert library is not None, "fits() comes first"
        self._step = library.marquee_step
        self._step.argtypes, self._step.restype = [_Pointer, _Pointer], None
        self._memory = HugePages()
        self._tensors: list[Tensor] = []  # whatever the structs point to
        self._matrices: list[PackedMatrix] = []  # likewise
        self._block_elements = parts.num_kv_heads * parts.head_dim * _BLOCK
        self._layers = (_Layer * len(parts.layers))(*(self._layer(layer) for layer in parts.layers))
        self._allocate_blocks()
        self._model = self._pack(parts)
        self.weight_bytes = sum(tensor.nbytes for tensor in self._tensors) + sum(matrix.nbytes for matrix in self._matrices)
        self._scratch = torch.empty(0, dtype=torch.bfloat16)
        self._unpacks = not all(matrix.is_plain for matrix in self._matrices)
        self._workspace: list[Tensor] = []
        self._num_workspace_rows = 0
        self._logits = torch.empty(0, self._model.head.columns)

    @property
    def kv_bytes(self) -> int:
        """What the blocks take; see Runner."""
        return self._cache.nbytes

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        """Have other blocks; see ResizableRunner. The tables of positions stay as long as they were."""
        self.num_blocks, self.max_model_len = num_blocks, max_model_len
        self._cache = torch.empty(0)  # given back first: there may be no room for both
        self._allocate_blocks()

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
            samples += range(first_row - chunk.num_logits, first_row)
        if len(samples) > len(self._logits):
            self._logits = torch.empty(len(samples), self._model.head.columns)
        arrays = {
            "token_ids": [token_id for chunk in chunks for token_id in chunk.token_ids],
            "positions": [position for chunk in chunks for position in range(chunk.start, chunk.end)],
            "row_chunks": [index for index, chunk in enumerate(chunks) for _ in chunk.token_ids],
            "chunks": specs,
            "block_table": table,
            "samples": samples,
        }
        numbers = torch.tensor([*chain.from_iterable(arrays.values())], dtype=torch.int64)  # one for all: a tensor costs 5 µs
        starts = accumulate(map(len, arrays.values()), initial=0)
        pointers = {name: numbers.data_ptr() + start * numbers.itemsize for name, start in zip(arrays, starts, strict=False)}
        self._use_threads(torch.get_num_threads())
        sizes = {"num_rows": rows, "num_chunks": len(chunks), "num_samples": len(samples)}
        step = _Step(**sizes, **pointers, logits=self._logits.data_ptr())
        self._step(ctypes.byref(self._model), ctypes.byref(step))
        return self._logits[: len(samples), : self.vocab_size]

    def reset(self) -> None:
        """Forget all sequences; see Runner. What they left is never read: zeroing it would only make untouched memory real."""

    def _pack(self, parts: DecoderParts) -> _Model:
        half = parts.head_dim // 2
        return _Model(
            num_layers=len(parts.layers),
            hidden=parts.embedding.shape[1],
            num_heads=parts.num_heads,
            num_kv_heads=parts.num_kv_heads,
            head_dim=parts.head_dim,
            intermediate=self._layers[0].down.depth,
            norm_eps=parts.norm_eps,
            attention_scale=parts.layers[0].scoring.scale or parts.head_dim**-0.5,
            embedding=None if _is_tied(parts) else self._keep(parts.embedding.data),
            head=self._matrix(_packed(parts.head, self._memory)),
            final_norm=self._keep(parts.final_norm.float()),
            cosines=self._keep(parts.cosines[:, :half]),
            sines=self._keep(parts.sines[:, :half]),
            layers=ctypes.addressof(self._layers),
        )

    def _allocate_blocks(self) -> None:
        # Not zeroed: memory becomes real when a block is first written to.
        self._cache = torch.empty(len(self._layers), 2, self.num_blocks, self._block_elements, dtype=torch.bfloat16)
        for layer, (keys, values) in zip(self._layers, self._cache, strict=True):
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()

    def _layer(self, layer: LayerParts) -> _Layer:
        gate, up = _halves(layer.gate_up, self._memory)
        biases = [module.get_parameter("bias").data for module in layer.qkv if module.bias is not None]
        return _Layer(
            qkv=(MatrixStruct * 3)(*(self._matrix(_packed(module, self._memory)) for module in layer.qkv)),
            num_qkv=len(layer.qkv),
            output=self._matrix(_packed(layer.output, self._memory)),
            gate=self._matrix(gate),
            up=self._matrix(up),
            down=self._matrix(_packed(layer.down, self._memory)),
            input_norm=self._keep(layer.input_norm.float()),
            post_norm=self._keep(layer.post_norm.float()),
            qkv_bias=self._keep(torch.cat(biases).float()) if biases else None,
            query_norm=None if layer.query_norm is None else self._keep(layer.query_norm.float()),
            key_norm=None if layer.key_norm is None else self._keep(layer.key_norm.float()),
            window=layer.scoring.window or 0,
        )

    def _matrix(self, matrix: PackedMatrix) -> MatrixStruct:
        self._matrices.append(matrix)
        return matrix.struct()

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
            "ordered": (max((matrix.depth for matrix in self._matrices if matrix.order is not None), default=0), torch.bfloat16),
        }
        self._workspace = [torch.zeros(rows, width, dtype=dtype) for width, dtype in sizes.values()]
        for name, tensor in zip(sizes, self._workspace, strict=True):
            setattr(model, name, tensor.data_ptr())
        groups = max((matrix.depth // matrix.group for matrix in self._matrices if matrix.minima is not None), default=0)
        self._sums = torch.empty(rows, groups)
        model.scratch.sums = self._sums.data_ptr()
        self._num_workspace_rows = rows

    def _use_threads(self, num_threads: int) -> None:
        """Have room for each thread to unpack two tiles of the deepest matrix."""
        self._model.num_threads = num_threads
        if self._unpacks and len(self._scratch) < num_threads:
            stride = _PANEL * max(matrix.depth for matrix in self._matrices)
            self._scratch = torch.empty(num_threads, stride, dtype=torch.bfloat16)
            self._model.scratch.memory, self._model.scratch.stride = self._scratch.data_ptr(), stride


def fits(parts: DecoderParts, block_tokens: int) -> bool:
    """Whether this machine and the kernels can run a decoder: weights in bfloat16 or packed, widths in whole panels, no soft cap."""
    first = parts.layers[0]
    linears = [module for layer in parts.layers for module in (*layer.qkv, layer.output, *layer.gate_up, layer.down)]
    return (
        all(_can_run(module) for module in (*linears, parts.head))
        and parts.embedding.dtype == torch.bfloat16
        and parts.embedding.device.type == "cpu"
        and block_tokens == _BLOCK
        and all(module.bias is None for layer in parts.layers for module in (layer.output, *layer.gate_up, layer.down))
        and getattr(parts.head, "bias", None) is None
        and all(width % _PANEL == 0 for module in linears for width in _widths(module))
        and parts.head_dim % _BLOCK == 0
        and parts.head_dim <= _MAX_HEAD_DIM
        and all(_are_alike(layer.gate_up) for layer in parts.layers)
        and getattr(parts.head, "order", None) is None
        and all(layer.scoring.softcap is None and layer.scoring.scale == first.scoring.scale for layer in parts.layers)
        and load_kernels("decoder") is not None
    )


def _are_alike(modules: Sequence[nn.Module]) -> bool:
    """Whether modules can be multiplied side by side: groups of one size, of inputs in one order, as formats make them."""
    packed = [module.packed if isinstance(module, PackedLinear) else None for module in modules]
    groups = {None if each is None else each.group for each in packed}
    orders = [each.order for each in packed if each is not None and each.order is not None]
    return len(groups) == 1 and len(orders) in (0, len(packed)) and all(torch.equal(order, orders[0]) for order in orders)


def _can_run(module: nn.Module) -> bool:
    if isinstance(module, PackedLinear):
        return module.packed is not None
    # Not a subclass of torch's parameters, as torchao's weights are.
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and module.weight.dtype == torch.bfloat16


def _is_tied(parts: DecoderParts) -> bool:
    return type(parts.head) is nn.Linear and parts.head.weight.data_ptr() == parts.embedding.data_ptr()


def _widths(module: Any) -> tuple[int, int]:
    return module.in_features, module.out_features


def _packed(module: nn.Module, memory: HugePages) -> PackedMatrix:
    if isinstance(module, PackedLinear):
        assert module.packed is not None, "fits() comes first"
        return module.packed
    return PackedMatrix.plain(module.get_parameter("weight").data, memory)


def _halves(gate_up: tuple[nn.Module, ...], memory: HugePages) -> tuple[PackedMatrix, PackedMatrix]:
    """Return the matrices of gate and up: two modules, or one with both."""
    if len(gate_up) == 2:
        return _packed(gate_up[0], memory), _packed(gate_up[1], memory)
    both = _packed(gate_up[0], memory)
    half = both.columns // 2
    return both.slice(0, half), both.slice(half, both.columns)
