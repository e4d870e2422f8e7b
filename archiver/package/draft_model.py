"""The draft model in an archive: a second checkpoint, which guesses what the first one says (speculative decoding)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.package.checkpoint import Checkpoint, read_checkpoint
from archiver.package.members import Member, checkpoint_members
from archiver.package.source import resolve_model
from handlers.config import HandlerConfig

DRAFT_DIR = "draft"
_TOKENIZER = "tokenizer.json"


def speculation_settings(method: str | None) -> tuple[dict[str, Any], Path | None]:
    """Return the settings and the draft model for "ngram", or for a draft model: a directory, or an id on the Hugging Face hub.

    Raises UsageError for a model that is none.
    """
    if method is None:
        return {}, None
    draft_model = None if method == "ngram" else resolve_model(method).path
    return {"engine": {"speculation": {"method": "draft" if draft_model else "ngram"}}}, draft_model


def draft_members(draft_model: Path | None, checkpoint: Checkpoint, config: HandlerConfig) -> list[Member]:
    """Return the members of the draft model that ``config`` asks for; none if it asks for none.

    Raises UsageError where there is one without the other, and for a draft model whose tokens mean something else than the model's.
    """
    speculation = config.engine.speculation
    if speculation.method != "draft":
        if draft_model is not None:
            raise UsageError(f"there is a draft model, but handler.engine.speculation.method is {speculation.method!r}: set draft")
        return []
    if draft_model is None:
        raise UsageError("handler.engine.speculation.method is 'draft': name the draft model's checkpoint (--speculate DIRECTORY)")
    if speculation.draft_model != DRAFT_DIR:
        raise UsageError(
            f"handler.engine.speculation.draft_model is {speculation.draft_model!r}, "
            f"but an archive's draft model stands in {DRAFT_DIR!r}; leave the key out"
        )
    draft = read_checkpoint(draft_model, trust_remote_code=config.model.trust_remote_code, allow_pickle=config.model.allow_pickle)
    ours, theirs = _vocabulary(draft), _vocabulary(checkpoint)
    if None not in (ours, theirs) and ours != theirs:
        raise UsageError(
            f"{draft_model} has another vocabulary than {checkpoint.directory}: a draft model must have the model's own tokenizer; "
            "take a smaller model of the same family, or --speculate ngram"
        )
    return checkpoint_members(draft, DRAFT_DIR)


def _vocabulary(checkpoint: Checkpoint) -> Any:
    """Return the tokens by their ids, as the tokenizer's file has them; None if it has another form than tokenizer.json."""
    file = checkpoint.directory / _TOKENIZER
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text("utf-8"))["model"]["vocab"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is no tokenizer of the tokenizers library") from error
