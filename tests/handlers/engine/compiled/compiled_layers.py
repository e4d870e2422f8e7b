"""Runners over tiny decoders, and their layers as a compiler sees them, with nothing compiled."""

from __future__ import annotations

import torch
from tiny_models import CONFIGS, EOS, make_model
from transformers import PreTrainedConfig

from handlers.engine.compatibility import adopt
from handlers.engine.compiled.decode_layer import DecodeLayer, LayerShape
from handlers.engine.compiled.layers import CompiledLayers
from handlers.engine.decoder_parts import take_apart
from handlers.engine.engine import Engine
from handlers.engine.lean_layers import LeanLayers
from handlers.engine.lean_runner import LeanRunner
from handlers.engine.scheduler import Chunk
from handlers.requests import SamplingParams

BLOCK = 8
MAX_MODEL_LEN = 256
LLAMA_LIKE = ("llama", "qwen2", "qwen3", "mistral-sliding", "phi3")


def make_runner(config: PreTrainedConfig = CONFIGS["llama"], dtype: torch.dtype = torch.float32, num_blocks: int = 512) -> LeanRunner:
    model = make_model(config, dtype)
    parts = take_apart(model, adopt(model).scorings, MAX_MODEL_LEN)
    assert parts is not None
    return LeanRunner(parts, num_blocks=num_blocks, block_tokens=BLOCK)


def lean_layers(runner: LeanRunner) -> LeanLayers:
    assert isinstance(runner.layers, LeanLayers)
    return runner.layers


def shapes_of(runner: LeanRunner) -> list[LayerShape]:
    shapes = [LayerShape.of(layer, runner.block_tokens) for layer in lean_layers(runner).layers]
    return [shape for shape in shapes if shape is not None]


class Uncompiled:
    """The code of a layer before it is compiled; counts its calls."""

    def __init__(self, shape: LayerShape) -> None:
        self._layer = DecodeLayer(shape)
        self.calls = 0

    def __call__(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        self.calls += 1
        return [self._layer(*inputs)]


def exchange(runner: LeanRunner) -> Uncompiled:
    """Have ``runner`` compute what fits with the code that would be compiled; all its layers must be alike."""
    code = Uncompiled(shapes_of(runner)[0])
    layers = lean_layers(runner)
    runner.layers = CompiledLayers(layers, [code] * len(layers.layers), runner.block_tokens)
    return code


def chunk(index: int, start: int, token_ids: list[int], num_drafts: int = 0) -> Chunk:
    """Return a chunk of the sequence ``index``, whose blocks are its own."""
    blocks = range(index * MAX_MODEL_LEN // BLOCK, (index + 1) * MAX_MODEL_LEN // BLOCK)
    return Chunk(f"sequence {index}", start, tuple(token_ids), list(blocks), True, num_drafts)


class Conversation:
    """An engine over a runner, and the tokens that came of prompts put to it all at once."""

    def __init__(self, runner: LeanRunner, prompts: list[list[int]], max_tokens: int) -> None:
        self.engine = Engine(runner, max_running=8, prefill_chunk_tokens=32, eos_token_ids=frozenset([EOS]))
        self.tokens: list[list[int]] = [[] for _ in prompts]
        for index, prompt in enumerate(prompts):
            params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
            self.engine.add(self.engine.new_sequence(str(index), prompt, params))

    def step(self) -> None:
        for event in self.engine.step():
            self.tokens[int(event.sequence_id)].extend(event.token_ids)

    def finish(self) -> list[list[int]]:
        while self.engine.has_work:
            self.step()
        return self.tokens
