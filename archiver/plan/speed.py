"""How fast a replica can be at most, from bytes over bandwidth and multiplications over peak: the roofline (Williams et al. 2009).

A decode step reads the weights once, and each sequence's keys and values; a prompt is bound by multiplications. What a device reaches of
its peaks, its profile says: measured where it has been, else an interval.
"""

from __future__ import annotations

from dataclasses import dataclass

from archiver.plan.hardware.profile import Dtype, Hardware
from archiver.plan.model.facts import Role
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.sizes import Replica
from handlers.memory_ledger import Interval

_FLOPS_PER_WEIGHT = 2  # a multiplication and an addition
_MULTIPLIED_AS: dict[str, Dtype] = {
    "compressed-tensors FP8": "float8",
    "torchao FP8": "float8",
    "fine-grained FP8": "float8",
    "fbgemm FP8": "float8",
    "compressed-tensors W8A8": "int8",
    "bitsandbytes int8": "int8",
}
"""Formats whose inputs are quantized too; the weights of all others are multiplied as numbers of half precision."""
_HALF_PRECISION: tuple[Dtype, ...] = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class SpeedModel:
    """Times in seconds, each an interval: ``low`` when the device reaches the most that its profile holds possible."""

    replica: Replica
    hardware: Hardware

    def decode_step(self, batch: int, context_tokens: int) -> Interval:
        """Return how long it takes to generate one token for each of ``batch`` sequences of ``context_tokens``."""
        return self.verify_step(batch, context_tokens, num_drafted=0)

    def verify_step(self, batch: int, context_tokens: int, num_drafted: int) -> Interval:
        """Return how long it takes to compute ``num_drafted`` guesses and one token more for each sequence, whose context is read once.

        Of pipeline stages each works on another part of the batch.
        """
        part = -(-batch // self.replica.layout.pipeline)
        tokens = part * (num_drafted + 1)
        read_bytes = self._weight_bytes(tokens) + part * self._kv_bytes(context_tokens)
        return self._step(read_bytes, tokens * self._token_flops(context_tokens), tokens)

    def prefill(self, num_tokens: int) -> Interval:
        """Return how long a prompt takes that nobody has read before."""
        return self._step(self._weight_bytes(num_tokens), num_tokens * self._token_flops(num_tokens // 2), num_tokens)

    def tokens_per_s(self, batch: int, context_tokens: int) -> Interval:
        """Return the tokens that ``batch`` sequences generate in a second, prompts left out."""
        step = self.decode_step(batch, context_tokens)
        return Interval(batch / step.high, batch / step.expected, batch / step.low)

    def timing(self) -> TimingModel:
        """Return the expected times as a sum, for the simulator: reading and multiplying are added up, which errs to the slow side."""
        device, per_flop = self.hardware.decode_bandwidth.expected, 1 / self._flops().expected
        block = self.replica.sizes.block_tokens
        token_s = self._token_flops(0) * per_flop
        return TimingModel(
            base_s=self._step(self._weight_bytes(self.replica.sizes.max_running), 0, 0).expected,
            per_decode_s=token_s,
            per_prompt_token_s=token_s,
            per_context_token_s=self._kv_bytes(block) / block / device,  # a state is read as often as a block
        )

    def balanced_batch(self) -> int:
        """Return the batch at which multiplying by the weights takes as long as reading them; up to it another sequence is nearly free.

        Keys and values are left out: reading them takes longer than multiplying with them, at any batch.
        """
        flops_s = self._token_flops(0) / self._flops().expected
        return max(round(self._weight_bytes(1 << 20) / self.hardware.decode_bandwidth.expected / flops_s), 1)

    def largest_batch(self, step_s: float, context_tokens: int, limit: int) -> int:
        """Return the largest batch, of at most ``limit``, whose step is expected to take at most ``step_s``; 0 if none does."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            is_fast_enough = self.decode_step(middle, context_tokens).expected <= step_s
            low, high = (middle, high) if is_fast_enough else (low, middle - 1)
        return low

    def _step(self, read_bytes: float, flops: float, num_tokens: int) -> Interval:
        """Tokens pass all pipeline stages, one after the other; ranks of tensor parallelism exchange twice a layer."""
        model, layout = self.replica.model, self.replica.layout
        device = _longer(_seconds(read_bytes, self.hardware.decode_bandwidth), _seconds(flops, self._flops())) * layout.pipeline
        hidden_bytes = num_tokens * model.hidden_size * model.dtype_bytes
        reduced = self.hardware.link.all_reduce_s(hidden_bytes, layout.tensor) * (2 * model.num_layers)
        return device + reduced + self._overhead()

    def _overhead(self) -> Interval:
        engine = self.replica.engine
        return engine.step_overhead_s + engine.layer_overhead_s * self.replica.model.num_layers

    def _weight_bytes(self, num_tokens: int) -> float:
        """Bytes of weights that a step over ``num_tokens`` reads on one device: of experts those that some token goes to."""
        model = self.replica.model
        experts = model.role_bytes(Role.EXPERT)
        is_tied = Role.HEAD not in {group.role for group in model.weights}  # then the embedding is read whole, as the head
        looked_up = model.role_bytes(Role.POSITION, Role.VISION, *(() if is_tied else (Role.EMBEDDING,)))
        touched = 1 - (1 - model.num_active_experts / model.num_experts) ** num_tokens if model.num_experts else 1
        return (model.weight_bytes - looked_up - experts * (1 - touched)) / self.replica.layout.gpus_per_replica

    def _kv_bytes(self, context_tokens: int) -> float:
        """Bytes of keys and values that pass through memory for one token: a gathered copy is written, and read again."""
        return self.replica.sequence_bytes(context_tokens) * (3 if self.replica.engine.gathers_context else 1)

    def _token_flops(self, context_tokens: int) -> float:
        """Multiplications and additions for one token on one device: with weights, and with its context's keys and values."""
        model = self.replica.model
        attended = sum(layer.tokens(context_tokens) for layer in model.cache) * 2 * model.num_heads * model.head_dim
        return _FLOPS_PER_WEIGHT * (model.num_active_elements + attended) / self.replica.layout.gpus_per_replica

    def _flops(self) -> Interval:
        """FLOP/s for what is multiplied; a device that does not multiply it takes the next best."""
        model = self.replica.model
        wanted = (_MULTIPLIED_AS.get(model.format.name), model.dtype, *_HALF_PRECISION)
        rates = (self.hardware.prefill_flops(dtype) for dtype in wanted if dtype is not None)  # type: ignore[arg-type]
        return next(rate for rate in rates if rate is not None)


def _seconds(amount: float, per_second: Interval) -> Interval:
    return Interval(amount / per_second.high, amount / per_second.expected, amount / per_second.low)


def _longer(one: Interval, other: Interval) -> Interval:
    return Interval(max(one.low, other.low), max(one.expected, other.expected), max(one.high, other.high))
