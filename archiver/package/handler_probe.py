"""Runs alone, in a subprocess: import a handler module the way TorchServe's worker does, and write down what it is.

``python -P handler_probe.py JOB RESULT`` with the working directory set to the model directory. JOB is a JSON file ``{"module": name,
"model_config": mapping, "stand_ins": [module, …]}``; modules in ``stand_ins`` are to be installed later, and are imitated here. RESULT
becomes a JSON file: ``{"class_name", "frontend_keys"}``, or ``{"problem"}``, or ``{"missing": module}``.

The search path is the worker's: TorchServe starts ``ts/model_service_worker.py`` as a script, so the directory ``ts/`` itself comes first
(its ``utils`` or ``service`` hide modules of those names), then the model directory.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock


class _StandIn(ModuleType):
    """A module that has every attribute one may ask for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=f"{self.__name__}.{name}")


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that requirements.txt will bring, and those in them."""

    def __init__(self, modules: Iterable[str]) -> None:
        self._modules = frozenset(modules)

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self._modules else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)  # the import system gives it a __path__, since its spec is a package's

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def probe(module_name: str, model_config: dict[str, Any], stand_ins: Iterable[str]) -> dict[str, Any]:
    """Import the module and describe its one handler; the search path must be set."""
    sys.meta_path.append(_StandInFinder(stand_ins))
    try:
        return _describe(importlib.import_module(module_name), model_config)
    except ModuleNotFoundError as error:
        return {"missing": error.name or str(error)}
    except Exception as error:  # noqa: BLE001 - whatever the author's module raises is for him to read
        return {"problem": f"cannot be imported: {_where(error)}{type(error).__name__}: {error}"}


def _describe(module: ModuleType, model_config: dict[str, Any]) -> dict[str, Any]:
    if callable(getattr(module, "handle", None)):
        return {"class_name": "handle", "frontend_keys": {}}
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__]
    if not classes:
        return {"problem": "defines no class, and TorchServe ignores imported ones; write class MyHandler(CausalLMHandler): ..."}
    if len(classes) > 1:
        return {"problem": f"defines {len(classes)} classes ({', '.join(cls.__name__ for cls in classes)}); TorchServe wants one"}
    (handler,) = classes
    lacking = [method for method in ("initialize", "handle") if not callable(getattr(handler, method, None))]
    if lacking:
        advice = "subclass CausalLMHandler (from handlers import CausalLMHandler)"
        return {"problem": f"{handler.__name__} is no handler: it has no {lacking[0]}(); {advice}"}
    if not hasattr(handler, "frontend_keys"):
        return {"class_name": handler.__name__, "frontend_keys": {}}
    from handlers.config import parse_handler_config

    return {"class_name": handler.__name__, "frontend_keys": handler.frontend_keys(parse_handler_config(model_config))}


def _where(error: BaseException) -> str:
    """Return ``file:line: `` of the innermost frame in the model directory."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == Path.cwd()]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""


def _set_search_path() -> None:
    torchserve = importlib.util.find_spec("ts")
    worker_directory = list(torchserve.submodule_search_locations or ())[:1] if torchserve else []
    sys.path[:0] = [*worker_directory, str(Path.cwd())]


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_bytes())
    _set_search_path()
    Path(sys.argv[2]).write_text(json.dumps(probe(job["module"], job["model_config"], job["stand_ins"])))
