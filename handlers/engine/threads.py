"""How many CPU threads a model's operators use: for small ones, handing work to other threads costs more than the work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from handlers.host_limits import num_cores

logger = logging.getLogger(__name__)

_TRIALS = 5
_LONG_STEP_S = 0.1
"""A step that takes this long is no small model's, and needs no second look."""
_SHORT_STEP_S = 0.0025
"""Of eight sequences: 0.3 ms a token, as the server around the engine takes. Where the engine takes less, the server gets a core."""


def settle_num_threads(step: Callable[[], object], asked: int | None) -> None:
    """Set torch's threads for this process: ``asked``, or else by trial the faster of one and all of them at ``step``, of eight sequences.

    A model that is done so soon leaves a core to the server. Call it before the thread that runs the model starts: torch hands the number
    to new threads only.
    """
    import torch

    num_all = min(torch.get_num_threads(), num_cores())
    if asked is None and num_all > 1:
        best_s = {num_threads: _best_s(step, num_threads) for num_threads in (num_all, 1)}
        if best_s[num_all] < _SHORT_STEP_S:
            del best_s[num_all]
            best_s[num_all - 1] = _best_s(step, num_all - 1)
        asked = min(best_s, key=best_s.__getitem__)
        trials = ", ".join(f"{time_s * 1e3:.1f} ms with {num_threads}" for num_threads, time_s in best_s.items())
        logger.info("%d CPU thread(s): a step takes %s", asked, trials)
    torch.set_num_threads(asked or num_all)


def _best_s(step: Callable[[], object], num_threads: int) -> float:
    """Return the shortest time of a few; on a busy machine the others say more about its neighbours."""
    import torch

    torch.set_num_threads(num_threads)
    best_s = float("inf")
    for _ in range(_TRIALS):
        started_s = time.perf_counter()
        step()
        best_s = min(best_s, time.perf_counter() - started_s)
        if best_s > _LONG_STEP_S:
            break
    return best_s
