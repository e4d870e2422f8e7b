"""A Runner for CUDA GPUs over Llama-like decoders: fused kernels, paged attention, CUDA graphs, and a host that never waits."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from handlers.engine.decoder_parts import DecoderParts
from handlers.engine.gpu.block_tables import BlockTables
from handlers.engine.gpu.decoder import GpuDecoder
from handlers.engine.gpu.flat_plan import FlatPlan
from handlers.engine.gpu.graphs import Capture, DecodeGraphs, bucket_sizes
from handlers.engine.gpu.kernels.decode_attention import choose_num_splits
from handlers.engine.gpu.kernels.prefill_attention import prefill_attention
from handlers.engine.gpu.kv_blocks import KVBlocks
from handlers.engine.gpu.paged_attention import PagedAttention, Prefill
from handlers.engine.gpu.staging import Staging
from handlers.engine.gpu.step_input import StepInput, aligned
from handlers.engine.memory.out_of_memory import is_out_of_memory
from handlers.engine.scheduler import StepPlan

logger = logging.getLogger(__name__)


class GpuRunner:
    """A PipelinedRunner and ResizableRunner: calls return before the device has done what they ask for. See ``fits_gpu`` for models.

    Blocks keep numbers of ``kv_dtype`` (None: the model's). ``resize`` has what ``new_capture`` returns record the steps of up to
    ``max_rows`` tokens of running sequences; until then, and where it is None, a step is asked for kernel by kernel. On a CPU kernels run
    in Triton's interpreter.
    """

    def __init__(
        self,
        parts: DecoderParts,
        *,
        num_blocks: int,
        block_tokens: int,
        kv_dtype: torch.dtype | None = None,
        prefill: Prefill = prefill_attention,
        new_capture: Callable[[], Capture] | None = None,
        max_rows: int = 1,
    ) -> None:
        self.block_tokens = block_tokens
        self.vocab_size: int = parts.embedding.shape[0]
        self.weight_bytes = parts.weight_bytes
        self._device = parts.embedding.device
        self._num_kv_heads = parts.num_kv_heads
        self._num_multiprocessors = _num_multiprocessors(self._device)
        self._blocks = KVBlocks(
            len(parts.layers),
            parts.num_kv_heads,
            parts.head_dim,
            block_tokens=block_tokens,
            dtype=kv_dtype or parts.embedding.dtype,
            device=self._device,
        )
        self._decoder = GpuDecoder(parts, self._blocks)
        self._prefill = prefill
        self._staging = Staging(self._device)
        self._new_capture, self._graph_sizes = new_capture, bucket_sizes(max_rows)
        self._graphs: DecodeGraphs | None = None
        self._allocate(num_blocks, parts.cosines.shape[0])

    @property
    def kv_bytes(self) -> int:
        """What the blocks take; see Runner."""
        return self._blocks.nbytes

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        """Have other blocks, and graphs over them; see ResizableRunner. Raises what tells that memory does not suffice for both."""
        self._graphs = None
        self._allocate(num_blocks, max_model_len)
        if self._new_capture is not None:
            self._graphs = self._record(self._new_capture())

    def run(self, plan: StepPlan) -> Tensor:
        """Ask for a step; see Runner."""
        return self._run(plan, None)

    def run_after(self, plan: StepPlan, drawn: Tensor) -> Tensor:
        """Ask for a step whose last tokens are still to come; see PipelinedRunner."""
        return self._run(plan, drawn)

    def reset(self) -> None:
        """Forget all sequences; see Runner. What they left in the blocks is never read."""
        self._tables.clear()

    def _allocate(self, num_blocks: int, max_model_len: int) -> None:
        self.num_blocks, self.max_model_len = num_blocks, max_model_len
        self._tables = BlockTables(aligned(-(-max_model_len // self.block_tokens)), self.block_tokens)
        self._blocks.resize(num_blocks)

    @torch.inference_mode()
    def _record(self, capture: Capture) -> DecodeGraphs | None:
        try:
            return DecodeGraphs(
                self._decode,
                capture,
                self._graph_sizes,
                max_context=self.max_model_len,
                block_tokens=self.block_tokens,
                vocab_size=self.vocab_size,
                device=self._device,
            )
        except Exception as error:  # whatever a driver, a library or a quantized layer raises
            if is_out_of_memory(error):
                raise  # with fewer blocks they can
            logger.warning("steps cannot be recorded as CUDA graphs: those of few sequences take longer", exc_info=True)
            return None

    @torch.inference_mode()
    def _run(self, plan: StepPlan, drawn: Tensor | None) -> Tensor:
        flat = FlatPlan(plan, self.block_tokens)
        drawn = drawn if flat.has_late_tokens else None  # it may be empty
        logits = self._graphs.run(flat, self._tables, drawn) if self._graphs else None
        return self._compute(flat, drawn) if logits is None else logits

    def _compute(self, flat: FlatPlan, drawn: Tensor | None) -> Tensor:
        """Ask for a step kernel by kernel."""
        shape = flat.shape
        flat.write(shape.split(self._staging.begin(shape.size)), self._tables)
        step = shape.split(self._staging.send(shape.size))
        attention = self._attention(step, flat.max_context, flat.max_query_len)
        return self._decoder.logits(step, attention, drawn).float()

    def _decode(self, step: StepInput[Tensor], drawn: Tensor) -> Tensor:
        """Ask for a step whose contexts are not known, for a graph."""
        return self._decoder.logits(step, self._attention(step, self.max_model_len, 0), drawn)

    def _attention(self, step: StepInput[Tensor], max_context: int, max_query_len: int) -> PagedAttention:
        num_splits = choose_num_splits(len(step.context_lens), self._num_kv_heads, max_context, self._num_multiprocessors)
        return PagedAttention(step, num_splits, max_query_len, self._prefill)


def _num_multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
