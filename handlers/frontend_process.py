"""The frontend that has started this worker, and the one thing that a worker ever wants of it: not to start another beside it.

TorchServe 0.12 takes any ``PUT /models/<name>?min_worker=``. Workers that refuse to load it starts again for five minutes, in which the
machine is busy and the first worker must not die: whichever is there when the number is set back, the last of its list is killed.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from handlers.torchrun import frontend_pid

logger = logging.getLogger(__name__)

_DEFAULT_ADDRESS = "http://127.0.0.1:8081"
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class FrontendProcess:
    """How its management API is reached: a base URL, and a key if it wants one."""

    management_url: str
    key: str | None = None

    @classmethod
    def of(cls, pid: int, proc: Path = Path("/proc")) -> FrontendProcess:
        """Read the command line and the files of the process ``pid`` (Linux, same user). Raises OSError or ValueError if that fails."""
        directory = (proc / str(pid) / "cwd").resolve()
        words = (proc / str(pid) / "cmdline").read_bytes().decode().split("\0")
        config = directory / next((file for option, file in zip(words, words[1:], strict=False) if option == "-f"), "config.properties")
        properties = _properties(config.read_text()) if config.exists() else {}
        keys = directory / "key_file.json"
        has_keys = properties.get("disable_token_authorization") != "true" and keys.exists()
        key = json.loads(keys.read_text())["management"]["key"] if has_keys else None
        return cls(_reachable(properties.get("management_address", _DEFAULT_ADDRESS)), key)

    def keep_one_worker(self, model: str, version: str) -> bool:
        """Set a model's number of workers to one, if the first is ready and this process is another; return whether that was so.

        All but the first are killed. Raises OSError if the frontend does not answer or refuses.
        """
        path = f"/models/{quote(model)}/{quote(version)}"
        first, *others = self._ask("GET", path)[0]["workers"]
        if first["status"] != "READY" or os.getpid() not in [worker["pid"] for worker in others]:
            return False
        self._ask("PUT", f"{path}?min_worker=1&max_worker=1")
        return True

    def _ask(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = Request(self.management_url + path, method=method, headers=headers)
        with build_opener(ProxyHandler({})).open(request, timeout=_TIMEOUT_S) as response:
            return json.load(response)


def refuse_more_workers(model: str, version: str) -> None:
    """Have the frontend of this worker, which is one too many, start no further ones; where that cannot be done, say so in the log."""
    try:
        if FrontendProcess.of(frontend_pid()).keep_one_worker(model, version):
            logger.warning("%s %s: min_worker and max_worker are set back to 1", model, version)
    except Exception:  # whatever it is, the refusal comes next
        logger.exception("%s %s: min_worker could not be set back to 1", model, version)


def _properties(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in lines}


def _reachable(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme != "http" or parts.hostname is None:
        raise ValueError(f"the management API is at {address}, not at an http URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"http://{_EVERY_ADDRESS.get(parts.hostname, host)}:{parts.port or 80}"
