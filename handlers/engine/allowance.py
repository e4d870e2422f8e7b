"""How much an engine takes into a step: what it was configured for, and less for a while after memory ran out."""

from __future__ import annotations

from handlers.engine.scheduler import StepPlan

_CLEAN_STEPS = 32
"""Steps without trouble after which one more sequence is admitted."""


class Allowance:
    """``max_running`` sequences at once and ``prompt_tokens`` a step: halved when memory runs out, then raised little by little.

    Additive increase and multiplicative decrease (Chiu and Jain 1989), because nobody says how much memory will be there next time.
    ``smallest_chunk_tokens`` of a prompt are read at once even so, and given back at a time. Not thread-safe.
    """

    def __init__(self, *, max_running: int, prompt_tokens: int, smallest_chunk_tokens: int) -> None:
        self.max_running = self._most_running = max_running
        self.prompt_tokens = self._most_prompt_tokens = prompt_tokens
        self._smallest_chunk_tokens = min(smallest_chunk_tokens, prompt_tokens)
        self._num_clean_steps = 0

    @property
    def is_cut(self) -> bool:
        """Whether it is less than what was configured."""
        return (self.max_running, self.prompt_tokens) != (self._most_running, self._most_prompt_tokens)

    def cut(self, plan: StepPlan) -> bool:
        """Allow half of ``plan``, for which memory did not suffice; False if it is one sequence, and can be no smaller."""
        self._num_clean_steps = 0
        num_sequences, num_prompt_tokens = len(plan.chunks), plan.num_prompt_tokens
        if num_sequences == 1 and num_prompt_tokens <= self._smallest_chunk_tokens:
            return False
        self.max_running = max(num_sequences // 2, 1)
        if num_prompt_tokens:
            self.prompt_tokens = max(num_prompt_tokens // 2, self._smallest_chunk_tokens)
        return True

    def note_clean_step(self) -> bool:
        """Count a step for which memory sufficed; return whether more is allowed from now on."""
        if not self.is_cut:
            return False
        self._num_clean_steps += 1
        if self._num_clean_steps < _CLEAN_STEPS:
            return False
        self._num_clean_steps = 0
        self.max_running = min(self.max_running + 1, self._most_running)
        self.prompt_tokens = min(self.prompt_tokens + self._smallest_chunk_tokens, self._most_prompt_tokens)
        return True
