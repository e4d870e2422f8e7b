"""What the configuration says about guessing, as objects: the runner that also runs a draft model, and what makes the guesses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.config import EngineConfig
from handlers.engine.capacity import Capacity, model_len
from handlers.engine.compatibility import Adoption
from handlers.engine.runner import ResizableRunner
from handlers.engine.runners import choose_runner
from handlers.engine.speculation.draft_model import DraftedRunner, ModelDrafter
from handlers.engine.speculation.drafter import Drafter
from handlers.engine.speculation.ngram import NgramDrafter
from handlers.engine.speculation.speculation import Speculation
from handlers.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PADDING = 1024
"""Models of one family round the size of their embeddings up differently (Qwen2.5: 151,936 and 152,064 for one vocabulary)."""


def add_draft_model(
    runner: ResizableRunner, draft_model: PreTrainedModel, adoption: Adoption, capacity: Capacity, config: EngineConfig
) -> tuple[ResizableRunner, Drafter]:
    """Return a runner for both models and what guesses with the second. ``adoption`` is of the draft model.

    Raises Unfit for a draft model that the engine cannot run, ConfigError for one with another vocabulary.
    """
    vocab_size = draft_model.config.get_text_config().vocab_size
    if abs(vocab_size - runner.vocab_size) > _PADDING:
        raise ConfigError(
            f"the draft model has a vocabulary of {vocab_size} tokens and the model one of {runner.vocab_size}: "
            "a draft model must have the model's own tokenizer; take a smaller model of the same family, or set "
            "handler.engine.speculation.method: ngram"
        )
    longest = min(capacity.max_model_len, model_len(draft_model.config) or capacity.max_model_len)
    draft = choose_runner(draft_model, adoption, Capacity(capacity.num_blocks, longest), config)
    return DraftedRunner(runner, draft), ModelDrafter(draft, vocab_size=runner.vocab_size, prompt_tokens=config.prefill_chunk_tokens)


def build_speculation(config: EngineConfig, drafter: Drafter | None, device: str) -> Speculation | None:
    """Return the engine's Speculation on a device ("cpu", "cuda"); ``drafter`` is that of a draft model. None where nothing is guessed."""
    speculation = config.speculation
    if speculation.method == "none":
        return None
    if speculation.method == "draft" and drafter is None:
        raise ConfigError("handler.engine.speculation.method is draft, but there is no draft model")
    return Speculation(
        drafter or NgramDrafter(),
        max_draft_tokens=speculation.max_draft_tokens,
        max_rows=speculation.most_rows(device),
    )
