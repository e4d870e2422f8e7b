"""An engine over a planned model on the GPU, in a process of its own: does what its arguments say, tells what it took, and waits.

Usage: engine_worker.py MODEL_DIR MEMORY_FRACTION. Writes one line of JSON once it has served, and ends when its input does.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from handlers import CausalLMHandler
from handlers.config import EngineConfig, HandlerConfig
from handlers.engine.client import EngineClient
from handlers.requests import SamplingParams

PROMPT_TOKENS, NEW_TOKENS = 700, 20


def main(model_dir: Path, memory_fraction: float) -> None:
    handler = CausalLMHandler()
    handler.model_dir, handler.model_name, handler.model_version = model_dir, "gpu", "1.0"
    handler.config = HandlerConfig(engine=EngineConfig(memory_fraction=memory_fraction))
    engine = handler.build_engine()
    held = {"allocated": torch.cuda.memory_allocated(), "reserved": torch.cuda.memory_reserved()}
    serve(engine, num_requests=2 * handler.config.engine.max_running)
    told = {"stats": asdict(engine.stats()), "peak_reserved": torch.cuda.max_memory_reserved(), **held}
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()
    sys.stdin.read()


def serve(engine: EngineClient, num_requests: int) -> list[str]:
    """Generate for different prompts at once; return how they ended."""
    params = SamplingParams(max_tokens=NEW_TOKENS, temperature=1.0, top_p=0.9, ignore_eos=True)
    for index in range(num_requests):
        engine.add(str(index), [(index * 31 + position) % 1000 for position in range(PROMPT_TOKENS)], params)
    reasons: list[str] = []
    while len(reasons) < num_requests:
        reasons += [event.finish_reason for event in engine.poll(10.0) if event.finish_reason]
    return reasons


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
