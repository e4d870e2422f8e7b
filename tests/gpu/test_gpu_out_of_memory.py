"""Memory that really runs out in a step: everybody is served all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers import CausalLMHandler
from handlers.config import EngineConfig, HandlerConfig
from tests.checkpoints import make_checkpoint
from tests.gpu.engine_worker import serve

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

MIB = 1 << 20
LEFT = 96 * MIB
"""Too little for a step of 2048 tokens, whose MLP alone takes as much, and enough for a few of them."""


def test_requests_are_served_when_others_take_the_memory(tmp_path: Path) -> None:
    import torch

    make_checkpoint(tmp_path / "model", hidden_size=1024, intermediate_size=4096, num_attention_heads=16, max_position_embeddings=2048)
    handler = CausalLMHandler()
    handler.model_dir, handler.model_name, handler.model_version = tmp_path, "gpu", "1.0"
    handler.config = HandlerConfig(engine=EngineConfig(memory_fraction=0.2, prefill_chunk_tokens=2048, max_running=8))
    engine = handler.build_engine()
    try:
        serve(engine, num_requests=8)  # libraries that find no memory for their kernels do not say so
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        others = torch.empty(free - LEFT, dtype=torch.uint8, device="cuda")
        assert set(serve(engine, num_requests=16)) == {"length"}
        stats = engine.stats()
        assert stats.out_of_memory > 0
        assert stats.max_running < 8

        del others
        torch.cuda.empty_cache()
        for _ in range(20):  # one sequence more every 32 steps
            serve(engine, num_requests=16)
        assert engine.stats().max_running == 8
    finally:
        engine.close()
