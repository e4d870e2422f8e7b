"""What of llama.cpp we use, through llama-cpp-python's low-level bindings: load a model, decode rows, move sequences about in its memory.

https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h says what each function does.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from handlers.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_SLOTS = 256
"""llama.cpp's LLAMA_MAX_SEQ."""
_NO_ROOM = 1
_UNTIL_THE_END = -1
_ERROR_LEVEL = 4  # ggml_log_level


class Row(NamedTuple):
    """One token to compute: at which position of which slot, and whether its logits are wanted."""

    token_id: int
    position: int
    slot: int
    wants_logits: bool


class SlotMemory(Protocol):
    """Keys and values by slot (a sequence id of llama.cpp's) and position; slots may share them."""

    def copy(self, source: int, target: int, end: int) -> None:
        """Let ``target``, which is empty, have the first ``end`` positions of ``source``, too; nothing is copied in fact."""
        ...

    def remove(self, slot: int, start: int) -> None:
        """Forget a slot's positions from ``start`` on."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class Decoder(SlotMemory, Protocol):
    """A loaded model with its memory."""

    max_rows: int
    """Rows of one ``decode``."""

    def decode(self, rows: Sequence[Row], logits: Tensor) -> bool:
        """Compute ``rows``; write the float32 logits wanted to ``logits``, ``(rows that want some, vocab_size)``.

        Returns False, with nothing computed, where the memory has no room. Raises RuntimeError when it fails.
        """
        ...


@dataclass(frozen=True, slots=True)
class ContextSizes:
    """Sizes of llama.cpp's context: tokens in its memory, in one call, and how many sequences."""

    num_tokens: int
    max_rows: int
    num_slots: int
    num_threads: int


class LlamaModel:
    """A GGUF file in llama.cpp. Raises ConfigError for a file that it cannot load or that no scheduler of ours can run."""

    def __init__(self, file: Path) -> None:
        self._library = load_library()
        parameters = self._library.llama_model_default_params()
        parameters.use_extra_bufts = False  # repacked weights: their AMX kernels have been seen to end the process
        self.handle = self._library.llama_model_load_from_file(str(file).encode(), parameters)
        if not self.handle:
            raise ConfigError(f"llama.cpp cannot load {file.name}: {_log().last_error or 'it does not say why'}")
        weakref.finalize(self, self._library.llama_model_free, self.handle)
        if unfit := self._unfitness():
            raise ConfigError(f"{file.name} cannot run on llama.cpp with continuous batching: it is {unfit}")

    @property
    def vocab_size(self) -> int:
        """Token ids run from 0 to ``vocab_size - 1``."""
        return int(self._library.llama_vocab_n_tokens(self._library.llama_model_get_vocab(self.handle)))

    @property
    def weight_bytes(self) -> int:
        """What the weights take in memory."""
        return int(self._library.llama_model_size(self.handle))

    def open_context(self, sizes: ContextSizes) -> LlamaContext:
        """Return a context with an empty memory."""
        return LlamaContext(self, self._library, sizes)

    def _unfitness(self) -> str | None:
        """What keeps a model from forgetting single positions, which sharing and preemption need."""
        library, handle = self._library, self.handle
        if library.llama_model_has_encoder(handle):
            return "an encoder-decoder"
        if library.llama_model_is_recurrent(handle) or library.llama_model_is_hybrid(handle):
            return "recurrent"
        return "a diffusion model" if library.llama_model_is_diffusion(handle) else None


class LlamaContext:
    """A Decoder. Used by one thread at a time."""

    def __init__(self, model: LlamaModel, library: Any, sizes: ContextSizes) -> None:
        self._model = model  # outlives its context
        self._library = library
        self._vocab_size = model.vocab_size
        handle = library.llama_init_from_model(model.handle, _context_parameters(library, sizes))
        if not handle:
            raise ConfigError(f"llama.cpp has no memory for {sizes.num_tokens} tokens: lower handler.engine.kv_memory_gib")
        weakref.finalize(self, library.llama_free, handle)
        self._handle = handle
        self._memory = library.llama_get_memory(handle)
        self.max_rows = int(library.llama_n_batch(handle))
        self._batch = _Batch(library, self.max_rows)

    def decode(self, rows: Sequence[Row], logits: Tensor) -> bool:
        """See Decoder."""
        status = self._library.llama_decode(self._handle, self._batch.fill(rows))
        if status == _NO_ROOM:
            return False
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}: {_log().last_error}")
        if len(logits):
            source = self._library.llama_get_logits(self._handle)
            ctypes.memmove(logits.data_ptr(), source, len(logits) * self._vocab_size * 4)
        return True

    def copy(self, source: int, target: int, end: int) -> None:
        """See SlotMemory."""
        self._library.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def remove(self, slot: int, start: int) -> None:
        """See SlotMemory."""
        self._library.llama_memory_seq_rm(self._memory, slot, start, _UNTIL_THE_END)

    def clear(self) -> None:
        """See SlotMemory."""
        self._library.llama_memory_clear(self._memory, False)


class _Batch:
    """The arrays of a llama_batch, filled again for each call."""

    def __init__(self, library: Any, max_rows: int) -> None:
        self._tokens, self._positions, self._slots, counts = ((ctypes.c_int32 * max_rows)() for _ in range(4))
        self._wanted = (ctypes.c_int8 * max_rows)()
        counts[:] = [1] * max_rows
        first = ctypes.addressof(self._slots)
        addresses = (first + row * ctypes.sizeof(ctypes.c_int32) for row in range(max_rows))
        pointer = ctypes.POINTER(ctypes.c_int32)
        pointers = (pointer * max_rows)(*(ctypes.cast(address, pointer) for address in addresses))
        self._struct = library.llama_batch(
            token=self._tokens, pos=self._positions, n_seq_id=counts, seq_id=pointers, logits=self._wanted, embd=None
        )

    def fill(self, rows: Sequence[Row]) -> Any:
        """Return a llama_batch of ``rows``, good until the next one."""
        num_rows = len(rows)
        self._tokens[:num_rows] = [row.token_id for row in rows]
        self._positions[:num_rows] = [row.position for row in rows]
        self._slots[:num_rows] = [row.slot for row in rows]
        self._wanted[:num_rows] = [row.wants_logits for row in rows]
        self._struct.n_tokens = num_rows
        return self._struct


def _context_parameters(library: Any, sizes: ContextSizes) -> Any:
    parameters = library.llama_context_default_params()
    parameters.n_ctx = sizes.num_tokens
    parameters.n_batch = sizes.max_rows
    parameters.n_seq_max = sizes.num_slots
    parameters.n_threads = parameters.n_threads_batch = sizes.num_threads
    parameters.kv_unified = True  # or each slot would have a part of its own, and nothing could be shared
    parameters.swa_full = True  # or sliding layers would forget what others still share
    parameters.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_ENABLED  # skips the cells of other slots
    parameters.no_perf = True
    return parameters


@functools.cache
def load_library() -> Any:
    """Return the bindings, which then write errors to our log and nothing else; raise ConfigError where they are not installed."""
    try:
        from llama_cpp import llama_cpp
    except ImportError as error:
        raise ConfigError("handler.engine.name llamacpp needs llama-cpp-python: pip install 'marquee[gguf]'") from error
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"llama-cpp-python cannot be loaded ({error}); build it again: pip install --force-reinstall 'marquee[gguf]'"
        ) from error
    llama_cpp.llama_log_set(_log().callback(llama_cpp), None)
    llama_cpp.llama_backend_init()
    return llama_cpp


class _Log:
    """What llama.cpp says: its errors, of which the last one is kept to explain a failure."""

    def __init__(self) -> None:
        self.last_error = ""
        self._callback: Any = None  # must live as long as the library

    def callback(self, library: Any) -> Any:
        self._callback = library.llama_log_callback(self._take)
        return self._callback

    def _take(self, level: int, text: bytes, _data: Any) -> None:
        if level != _ERROR_LEVEL:
            return
        self.last_error = " ".join(text.decode("utf-8", "replace").split())
        logger.warning("llama.cpp: %s", self.last_error)


@functools.cache
def _log() -> _Log:
    return _Log()
