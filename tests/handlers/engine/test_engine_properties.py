"""Whatever is added, cancelled, preempted, crashes or has no memory: blocks stay intact, and each gets what it would have got alone."""

from __future__ import annotations

from engine_fakes import VOCAB_SIZE, FakeDrafter, FakeRunner, PipelinedFakeRunner, continuation
from engine_rig import EngineRig, greedy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from handlers.engine.speculation.speculation import Speculation

MAX_MODEL_LEN = 24
# Few beginnings, so that prompts share them, in few tokens; and a token that makes the logits of its sequence invalid.
BEGINNINGS = [[], [1] * 4, [1] * 8, [1, 2] * 5, [2, 1, 1, 1] * 4]
POISON = VOCAB_SIZE - 1


class EngineMachine(RuleBasedStateMachine):
    """Pools from "hardly one sequence" to "enough", so that preemption is common; beginnings in common, so that sharing is, too."""

    @initialize(
        num_blocks=st.integers(6, 20),
        max_running=st.integers(1, 6),
        prefill_chunk_tokens=st.integers(1, 20),
        prefix_caching=st.booleans(),
        kind=st.sampled_from([FakeRunner, PipelinedFakeRunner]),
        one_wrong_in=st.sampled_from([None, 1, 3, 100]),
        max_rows=st.integers(2, 24),
    )
    def start(self, num_blocks, max_running, prefill_chunk_tokens, prefix_caching, kind, one_wrong_in, max_rows):
        self.now_s = 0.0
        self.prompts, self.sequences = {}, {}
        self.drafter = FakeDrafter(one_wrong_in) if one_wrong_in else None
        self.rig = EngineRig(
            kind(num_blocks, block_tokens=4, max_model_len=MAX_MODEL_LEN, poison=POISON),
            speculation=Speculation(self.drafter, max_draft_tokens=5, max_rows=max_rows) if self.drafter else None,
            max_running=max_running,
            prefill_chunk_tokens=prefill_chunk_tokens,
            prefix_caching=prefix_caching,
            clock=lambda: self.now_s,
        )

    @rule(
        beginning=st.sampled_from(BEGINNINGS),
        rest=st.lists(st.integers(0, VOCAB_SIZE - 2), min_size=1, max_size=6),
        is_bad=st.integers(0, 9).map(lambda number: number == 0),
        max_tokens=st.integers(1, 14),
        num_forks=st.sampled_from([1, 1, 1, 2, 4]),
        stop_token_ids=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=2).map(tuple),
        ignore_eos=st.booleans(),
        priority=st.integers(-1, 1),
        max_queue_s=st.sampled_from([None, None, 5.0, 20.0]),
        penalty=st.sampled_from([0.0, 0.0, 1e-3]),
    )
    def add(self, beginning, rest, is_bad, max_tokens, num_forks, stop_token_ids, ignore_eos, priority, max_queue_s, penalty):
        prompt = [*beginning, *rest, *([POISON] if is_bad else [])]
        # So small a penalty changes nothing, but the tokens must be known for it.
        params = greedy(max_tokens, stop_token_ids=stop_token_ids, ignore_eos=ignore_eos, presence_penalty=penalty)
        for _ in range(num_forks):
            name = str(len(self.sequences))
            self.prompts[name] = prompt
            self.sequences[name] = self.rig.engine.new_sequence(name, prompt, params, priority=priority, max_queue_s=max_queue_s)
            self.rig.engine.add(self.sequences[name])

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def cancel(self, data):
        self.rig.cancel(data.draw(st.sampled_from(sorted(self.sequences))))

    @rule(num_steps=st.integers(1, 8))
    def step(self, num_steps):
        for _ in range(num_steps):
            self.now_s += 1.0
            self.rig.step()

    @rule(num_failures=st.integers(1, 2))
    def crash(self, num_failures):
        for step in range(1, num_failures + 1):
            self.rig.runner.failures[self.rig.runner.num_steps + step] = RuntimeError("boom")
        self.rig.step()

    @rule(num_failures=st.integers(1, 6))
    def run_out_of_memory(self, num_failures):
        """Often enough to come down to one sequence that fails alone."""
        for step in range(1, num_failures + 1):
            self.rig.runner.failures[self.rig.runner.num_steps + step] = MemoryError()
        self.rig.step()

    @invariant()
    def accounts_balance(self):
        if not hasattr(self, "rig"):
            return
        stats, ended = self.rig.engine.stats(), self.rig.outcome.last
        assert len(self.sequences) == stats.running + stats.waiting + len(ended)
        assert stats.running <= stats.max_running <= self.rig.engine.limits.max_running

    def teardown(self):
        if not hasattr(self, "rig"):
            return
        outcome = self.rig.finish()
        assert outcome.last.keys() == self.sequences.keys()
        assert len(self.sequences) == sum(outcome.count(reason) for reason in ("stop", "length", "cancelled", "expired", "error"))
        assert self.rig.engine.stats().blocks_used == 0
        assert not (self.drafter and self.drafter.live)
        for name, sequence in self.sequences.items():
            self.check_output(name, sequence.max_len, sequence.end_token_ids)

    def check_output(self, name, max_len, end_token_ids):
        expected = continuation(self.prompts[name], max_len, end_token_ids)
        event, got = self.rig.outcome.last[name], self.rig.outcome.token_ids[name]
        if event.finish_reason in ("cancelled", "error", "expired"):
            assert got == expected[: len(got)]
            assert not (event.finish_reason == "expired" and got)
            return
        assert got == expected
        ended_by_token = expected[-1] in end_token_ids
        assert (event.finish_reason, event.num_stop_tokens) == (("stop", 1) if ended_by_token else ("length", 0))


EngineMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestEngineMachine = EngineMachine.TestCase
