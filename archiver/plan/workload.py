"""What a server will be asked for: how long prompts and answers are, how many come, and how fast they must be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from archiver.errors import UsageError


@dataclass(frozen=True)
class Quantiles:
    """Lengths in tokens: half of the requests stay below ``p50``, 95 of a hundred below ``p95``."""

    p50: int
    p95: int

    def at_most(self, limit: int) -> Quantiles:
        """Return the lengths, cut at a limit."""
        return Quantiles(min(self.p50, limit), min(self.p95, limit))


@dataclass(frozen=True)
class Workload:
    """The load of a whole server.

    ``rate``: requests a second; ``concurrency``: requests in progress at once; None where nobody knows. ``ttft_ms`` and ``itl_ms``: how
    long the first token and each further one may take, at the 95th and 50th percentile of lengths. ``shared_prefix_tokens``: how many
    tokens prompts begin with that others begin with too.
    """

    prompt_tokens: Quantiles = Quantiles(512, 2048)
    output_tokens: Quantiles = Quantiles(128, 512)
    rate: float | None = None
    concurrency: int | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None
    shared_prefix_tokens: int = 0

    def within(self, max_model_len: int | None) -> Workload:
        """Return the load with lengths that a model takes, where nobody has said which: at most a quarter of it for the answer."""
        defaults = Workload()
        if max_model_len is None or (self.prompt_tokens, self.output_tokens) != (defaults.prompt_tokens, defaults.output_tokens):
            return self
        output, prompt = max(max_model_len // 4, 1), max(max_model_len - max(max_model_len // 4, 1), 1)
        return replace(self, prompt_tokens=self.prompt_tokens.at_most(prompt), output_tokens=self.output_tokens.at_most(output))

    def __post_init__(self) -> None:
        for name in ("rate", "concurrency", "ttft_ms", "itl_ms"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} must be a number above 0, got {value}")
        if self.shared_prefix_tokens < 0:
            raise UsageError(f"--shared-prefix-tokens must be 0 or more, got {self.shared_prefix_tokens}")

    @property
    def sequence_tokens(self) -> Quantiles:
        """How long sequences are at their ends; of two 95th percentiles the sum, which few sequences reach."""
        return Quantiles(self.prompt_tokens.p50 + self.output_tokens.p50, self.prompt_tokens.p95 + self.output_tokens.p95)

    @property
    def mean_context_tokens(self) -> int:
        """How much a sequence in progress has behind it: its prompt, and half of its answer."""
        return self.prompt_tokens.p50 + self.output_tokens.p50 // 2


def read_quantiles(text: str | None, option: str, default: Quantiles) -> Quantiles:
    """Read ``512,2048``, or one number for both; None is the default. Raises UsageError that names the ``option``."""
    if text is None:
        return default
    try:
        p50, p95 = map(int, text.split(",")) if "," in text else (int(text), int(text))
    except ValueError:
        raise UsageError(f"{option} takes two lengths in tokens, as in 512,2048 (median, 95th percentile); got {text!r}") from None
    if not 1 <= p50 <= p95:
        raise UsageError(f"{option}: the median must be at least 1 and at most the 95th percentile; got {text!r}")
    return Quantiles(p50, p95)
