"""Speculative decoding on tinychat's kinds of prompts, beside the same engine without it: tokens a second, tokens a step, guesses.

    python -m tests.bench.speculation_bench --prompts 60 --repeats 3 --streams 1,8

Every prompt is new: repeats draw others. Both engines answer the same prompts in turns, greedily, and must give the same tokens.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer
from transformers import AutoTokenizer

from handlers.config import EngineConfig, ModelConfig, SpeculationConfig
from handlers.engine.build import build_engine_client
from handlers.engine.client import EngineClient
from handlers.requests import SamplingParams
from handlers.weights.checkpoint import Checkpoint, eos_token_ids
from tests.bench.figures import Spread

TINYCHAT = Path(__file__).parents[2] / "examples" / "tinychat"
KINDS = ("copying", "extraction", "memory", "stories")
_METHODS = ("none", "ngram")
_GREEDY = SamplingParams(max_tokens=256, temperature=0.0)


@dataclass(frozen=True)
class Turn:
    """One engine's work through one set of prompts."""

    num_tokens: int
    num_steps: int
    num_guesses: int
    num_right: int
    seconds: float
    num_later_tokens: int
    later_seconds: float

    @property
    def tokens_per_s(self) -> float:
        """From the first request to the last token, prompts included."""
        return self.num_tokens / self.seconds

    @property
    def later_tokens_per_s(self) -> float:
        """Of one request on average, from its first token on: what comes with that one does not count."""
        return self.num_later_tokens / self.later_seconds


def make_engine(method: str) -> EngineClient:
    """Start an engine over tinychat."""
    model = Checkpoint.open(TINYCHAT / "model", ModelConfig()).load()
    config = EngineConfig(kv_memory_gib=0.25, max_running=16, speculation=SpeculationConfig(method=method))
    return build_engine_client(model, config, eos_token_ids=eos_token_ids(model))


def draw_prompts(kind: str, count: int, seed: int) -> list[list[int]]:
    """Return the token ids of ``count`` prompts of a kind of tinychat's corpus."""
    sys.path.insert(0, str(TINYCHAT))
    draw = importlib.import_module(f"kinds.{kind}").draw
    tokenizer: Any = AutoTokenizer.from_pretrained(TINYCHAT / "model")
    rng = Random(seed)
    chats = [[{"role": turn.role, "content": turn.content} for turn in draw(rng).prompt] for _ in range(count)]
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]


def answer(engine: EngineClient, prompts: Sequence[list[int]], streams: int) -> tuple[Turn, dict[str, list[int]]]:
    """Have all prompts answered, ``streams`` at once."""
    before, answers, waiting = engine.stats(), defaultdict(list), iter(enumerate(prompts))
    begun: dict[str, tuple[float, int]] = {}
    num_later_tokens, later_seconds = 0, 0.0
    started = time.perf_counter()
    num_live = sum(_add_next(engine, waiting) for _ in range(streams))
    while num_live:
        for event in engine.poll(1.0):
            answers[event.sequence_id] += event.token_ids
            begun.setdefault(event.sequence_id, (time.perf_counter(), len(event.token_ids)))
            if event.finish_reason:
                first_s, num_first = begun[event.sequence_id]
                num_later_tokens += len(answers[event.sequence_id]) - num_first
                later_seconds += time.perf_counter() - first_s
                num_live += _add_next(engine, waiting) - 1
    seconds, after = time.perf_counter() - started, engine.stats()
    turn = Turn(
        num_tokens=sum(map(len, answers.values())),
        num_steps=after.steps - before.steps,
        num_guesses=after.drafted_tokens - before.drafted_tokens,
        num_right=after.accepted_tokens - before.accepted_tokens,
        seconds=seconds,
        num_later_tokens=num_later_tokens,
        later_seconds=later_seconds,
    )
    return turn, dict(answers)


def _add_next(engine: EngineClient, waiting: Iterator[tuple[int, list[int]]]) -> bool:
    for number, prompt in waiting:
        engine.add(str(number), prompt, _GREEDY)
        return True
    return False


def main(
    prompts: Annotated[int, typer.Option(help="Prompts of a kind and turn.")] = 60,
    repeats: Annotated[int, typer.Option(help="Turns, with new prompts each.")] = 3,
    streams: Annotated[str, typer.Option(help="How many at once.")] = "1,8",
) -> None:
    """Print a table in Markdown: median, lowest and highest of the turns."""
    engines = {method: make_engine(method) for method in _METHODS}
    print("| prompts | streams | tokens/s without | with | ratio | ratio after the first token | tokens a step | guesses that are right |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for num_streams in map(int, streams.split(",")):
        for kind in KINDS:
            turns: dict[str, list[Turn]] = defaultdict(list)
            for seed in range(repeats):
                told = {}
                token_ids = draw_prompts(kind, prompts, 1000 * num_streams + seed)
                for method, engine in engines.items():
                    turn, told[method] = answer(engine, token_ids, num_streams)
                    turns[method].append(turn)
                if told["none"] != told["ngram"]:
                    print(f"{kind}: some answers differ: bfloat16 rounds otherwise in other batches", file=sys.stderr)
            print(_row(kind, num_streams, turns["none"], turns["ngram"]), flush=True)
    for engine in engines.values():
        engine.close()


def _row(kind: str, streams: int, plain: list[Turn], guessed: list[Turn]) -> str:
    pairs = list(zip(guessed, plain, strict=True))
    ratios = Spread.of([ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in pairs]).show(2)
    later = Spread.of([ours.later_tokens_per_s / theirs.later_tokens_per_s for ours, theirs in pairs]).show(2)
    rates = [Spread.of([turn.tokens_per_s for turn in turns]).show() for turns in (plain, guessed)]
    a_step = sum(turn.num_tokens for turn in guessed) / sum(turn.num_steps for turn in guessed)
    right = sum(turn.num_right for turn in guessed) / max(sum(turn.num_guesses for turn in guessed), 1)
    return f"| {kind} | {streams} | {' | '.join(rates)} | {ratios} | {later} | {a_step:.2f} | {right:.0%} |"


if __name__ == "__main__":
    typer.run(main)
