"""What a continuous engine may find around the model that it is built over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.config import COMPILED_DIR
from handlers.memory_ledger import MemoryLedger, read_memory_ledger

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from handlers.engine.memory.device import DeviceMemory
    from handlers.engine.parallel.ranks import Ranks


@dataclass(frozen=True)
class Surroundings:
    """None for what there is not.

    ``memory`` is that of the model's device from before the model was loaded, ``ledger`` what was planned for it. With ``ranks`` the model
    is this process's share of one, of which they have the others. ``draft_model`` guesses what the model says: ``config.speculation`` may
    ask for it. ``compiled_dir`` may hold the decode step that ``config.compile`` asks for; what is in it is trusted.
    """

    memory: DeviceMemory | None = None
    ledger: MemoryLedger | None = None
    ranks: Ranks | None = None
    draft_model: PreTrainedModel | None = None
    compiled_dir: Path | None = None

    @classmethod
    def of(cls, model_dir: Path, memory: DeviceMemory, ranks: Ranks | None, draft_model: PreTrainedModel | None) -> Surroundings:
        """Return them with what lies in an archive beside the model: the plan of its memory, and what was compiled for it."""
        return cls(memory, read_memory_ledger(model_dir), ranks, draft_model, model_dir / COMPILED_DIR)
