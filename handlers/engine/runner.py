"""What the engine asks of a model: run a planned step, return the logits of the rows that sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from handlers.engine.scheduler import StepPlan

if TYPE_CHECKING:
    from torch import Tensor


class Runner(Protocol):
    """Owns the device, its memory and the layout of the KV cache in it. Used by one thread."""

    @property
    def num_blocks(self) -> int:
        """KV blocks that can be in use at once; their ids run from 0 to ``num_blocks - 1``."""
        ...

    @property
    def block_tokens(self) -> int:
        """Tokens that a block holds."""
        ...

    @property
    def max_model_len(self) -> int:
        """The longest sequence, in tokens."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids run from 0 to ``vocab_size - 1``."""
        ...

    @property
    def weight_bytes(self) -> int:
        """What the weights take in memory, bytes: everywhere together, once a forward pass has been made."""
        ...

    @property
    def kv_bytes(self) -> int:
        """What the blocks take in memory, bytes; 0 where memory is taken as sequences grow."""
        ...

    def run(self, plan: StepPlan) -> Tensor:
        """Compute every chunk and keep its keys and values.

        Returns float32 logits ``(num_logits of all chunks, vocab_size)``, in the order of the plan, good until the next step. The keys and
        values of the tokens before a chunk lie in its blocks, which other sequences may share; those that the chunk fills are its own.
        Whatever it raises, ``reset`` makes the runner usable again; before that, the same step may be asked for again, or one with less
        in it: sequences left out, prompts in shorter chunks.
        """
        ...

    def reset(self) -> None:
        """Forget all sequences."""
        ...


class ResizableRunner(Runner, Protocol):
    """A Runner whose blocks are allocated once it is known what everything else takes."""

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        """Have ``num_blocks`` blocks, with nothing in them, in place of those before; sequences become no longer than they were allowed to.

        A runner may record here what it is to do over these blocks (CUDA graphs), which takes as much memory over few blocks as over many.
        Raises what allocating raises when memory does not suffice: then there are no blocks, and it may be called again.
        """
        ...


@runtime_checkable
class PipelinedRunner(Runner, Protocol):
    """A Runner whose device works on while the host prepares the next step; all its work is done in the order in which it is asked for."""

    def run_after(self, plan: StepPlan, drawn: Tensor) -> Tensor:
        """Compute as ``run`` does, and return before it is done.

        Where a chunk has a ``late_row``, its last token is ``drawn[late_row]``: ``drawn`` ``(num_rows,)``, int64 on the device, is what was
        sampled after the step before, negative where its logits were invalid (whatever comes of that token is thrown away).
        """
        ...
