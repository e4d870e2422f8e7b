"""Whether Triton can launch kernels here; having its wheel is not enough."""

from __future__ import annotations

import functools
import logging
from importlib.util import find_spec

logger = logging.getLogger(__name__)


@functools.cache
def can_launch() -> bool:
    """Whether it can: it compiles its launcher where it is first used, with the machine's C compiler and Python's headers. Says why not."""
    if find_spec("triton") is None:
        return False
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except Exception as error:  # noqa: BLE001 - a missing compiler, a compiler that fails, a driver that is too old
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        logger.warning("no GPU kernels of ours: Triton needs a C compiler (gcc) and Python's headers, and says: %s", reason)
        return False
    return True
