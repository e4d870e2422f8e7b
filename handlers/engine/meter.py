"""Count steps and tokens, and remember how long the latest steps took."""

from __future__ import annotations

from collections import deque

_RECENT_STEPS = 1000


class Meter:
    """Totals since the start, and step times over the last 1000 steps. Not thread-safe."""

    def __init__(self) -> None:
        self.steps = 0
        self.generated_tokens = 0
        self._step_ms: deque[float] = deque(maxlen=_RECENT_STEPS)

    def record_step(self, duration_s: float, num_tokens: int) -> None:
        """Count one step and the tokens it generated."""
        self.steps += 1
        self.generated_tokens += num_tokens
        self._step_ms.append(duration_s * 1000)

    def step_ms(self, quantile: float) -> float:
        """Return a quantile (0 to 1, nearest rank) of the recent step times; 0 before the first step."""
        if not self._step_ms:
            return 0.0
        ranked = sorted(self._step_ms)
        return ranked[min(int(quantile * len(ranked)), len(ranked) - 1)]
