"""Count generated tokens, now and lately, and remember how long the latest steps took."""

from __future__ import annotations

from collections import deque

_RECENT_STEPS = 1000
_RECENT_S = 5


class Meter:
    """Tokens since the start and in the last 5 whole seconds, and step times over the last 1000 steps. Not thread-safe."""

    def __init__(self) -> None:
        self.generated_tokens = 0
        self._step_ms: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._tokens_by_second: dict[int, int] = {}

    def record_step(self, started_s: float, finished_s: float, num_tokens: int) -> None:
        """Count one step and the tokens it generated; times are of one monotonic clock."""
        self.generated_tokens += num_tokens
        self._step_ms.append((finished_s - started_s) * 1000)
        second = int(finished_s)
        if second not in self._tokens_by_second:
            self._tokens_by_second = {old: count for old, count in self._tokens_by_second.items() if second - old <= _RECENT_S}
        self._tokens_by_second[second] = self._tokens_by_second.get(second, 0) + num_tokens

    def tokens_per_s(self, now_s: float) -> float:
        """Return how many tokens a second were generated in the last whole seconds before ``now_s``."""
        return sum(self._tokens_by_second.get(int(now_s) - age, 0) for age in range(1, _RECENT_S + 1)) / _RECENT_S

    def step_ms(self, quantile: float) -> float:
        """Return a quantile (0 to 1, nearest rank) of the recent step times; 0 before the first step."""
        if not self._step_ms:
            return 0.0
        ranked = sorted(self._step_ms)
        return ranked[min(int(quantile * len(ranked)), len(ranked) - 1)]
