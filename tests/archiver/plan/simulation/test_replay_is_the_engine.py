"""The oracle of the replay: the real engine over a fake model, fed the same arrivals, plans the same steps at the same times."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from traces import MAX_MODEL_LEN, TIMING, settings, traces

from archiver.plan.simulation.continuous import ContinuousReplay, ContinuousSettings
from archiver.plan.simulation.outcome import Answer
from archiver.plan.simulation.trace import TraceRequest
from handlers.engine.admission import Admission
from handlers.engine.client import Event
from handlers.engine.engine import Engine
from handlers.engine.scheduler import StepPlan
from handlers.errors import Overloaded
from handlers.requests import SamplingParams
from tests.handlers.engine.engine_fakes import VOCAB_SIZE, FakeRunner

Steps = list[list[tuple[str, int, int, bool]]]


def summary(plan: StepPlan) -> list[tuple[str, int, int, bool]]:
    return [(chunk.sequence_id, chunk.start, len(chunk.token_ids), chunk.samples) for chunk in plan.chunks]


class EngineReplay:
    """The engine in a loop as its thread's, on a clock that moves when the model runs; admission is the real one."""

    def __init__(self, requests: list[TraceRequest], options: ContinuousSettings) -> None:
        self.now_s = 0.0
        self.coming = deque((str(number), request) for number, request in enumerate(requests, 1))
        self.runner = FakeRunner(options.num_blocks, options.block_tokens, MAX_MODEL_LEN)
        self.engine = Engine(
            self.runner,
            max_running=options.max_running,
            max_waiting=options.max_waiting,
            prefill_chunk_tokens=options.prefill_chunk_tokens,
            prefix_caching=options.prefix_caching,
            clock=lambda: self.now_s,
        )
        self.admission = Admission(self.engine.limits, clock=lambda: self.now_s)
        self.arrivals_s: dict[str, float] = {}
        self.first_s: dict[str, float] = {}
        self.num_tokens: dict[str, int] = {}
        self.answers: list[Answer] = []
        self.num_refused = 0

    def run(self) -> Steps:
        while self.coming or self.engine.has_work:
            if not self.engine.has_work:
                self.now_s = self.coming[0][1].arrival_s + TIMING.request_overhead_s
                self.admit()
                continue
            events = self.engine.step()
            plan = self.runner.plans[-1]
            num_decodes = len(plan.decodes.chunks)
            num_prompt_tokens = sum(len(chunk.token_ids) for chunk in plan.chunks) - num_decodes
            self.now_s += TIMING.step_s(num_decodes, num_prompt_tokens, sum(chunk.end for chunk in plan.chunks))
            self.admit()
            for event in events:
                self.take(event)
        return [summary(plan) for plan in self.runner.plans]

    def admit(self) -> None:
        while self.coming and self.coming[0][1].arrival_s + TIMING.request_overhead_s <= self.now_s:
            name, request = self.coming.popleft()
            if request.num_tokens > MAX_MODEL_LEN:
                continue
            try:
                self.admission.admit(name, request.prompt_tokens)
            except Overloaded:
                self.num_refused += 1
                continue
            self.arrivals_s[name] = request.arrival_s
            params = SamplingParams(max_tokens=request.output_tokens, temperature=0.0, ignore_eos=True)
            self.engine.add(self.engine.new_sequence(name, prompt(name, request), params))

    def take(self, event: Event) -> None:
        name = event.sequence_id
        self.admission.note(event)
        self.first_s.setdefault(name, self.now_s)
        self.num_tokens[name] = self.num_tokens.get(name, 0) + len(event.token_ids)
        if event.finish_reason is not None:
            self.answers.append(Answer(self.arrivals_s[name], self.first_s[name], self.now_s, self.num_tokens[name]))


def prompt(name: str, request: TraceRequest) -> list[int]:
    """Prompts begin alike where their prefixes have one name, and nowhere else."""
    beginning = [VOCAB_SIZE - 1 if request.prefix == "a" else VOCAB_SIZE - 2] * request.prefix_tokens
    return beginning + [int(name)] * (request.prompt_tokens - request.prefix_tokens)


@given(traces(), settings)
def test_the_replay_plans_what_the_engine_plans(requests, options):
    steps: Steps = []
    journal = ContinuousReplay(requests, TIMING, options, on_step=lambda plan: steps.append(summary(plan))).run()
    real = EngineReplay(requests, options)
    assert steps == real.run()
    assert journal.answers == real.answers
    assert journal.num_refused == real.num_refused
    assert journal.num_preemptions == real.engine.stats().preemptions
