"""Where an engine process takes its engine from: the handler class, made again without TorchServe around it."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

from handlers.config import HandlerConfig, parse_handler_config
from handlers.engine.client import EngineClient
from handlers.errors import ConfigError


class EngineBuilder(Protocol):
    """What an engine process needs of a handler, which is made without arguments: its methods may use these four attributes only."""

    config: HandlerConfig
    model_dir: Path
    model_name: str
    model_version: str

    def load_model(self) -> Any:
        """Load the model, or this rank's share of it, in the calling process."""
        ...

    def build_engine(self) -> EngineClient:
        """Load the model and start an engine over it, in the calling process."""
        ...


@dataclass(frozen=True, slots=True)
class EngineSource:
    """A handler's class by name, and its attributes as plain data."""

    module: str
    qualname: str
    model_dir: str
    model_name: str
    model_version: str
    config: dict[str, Any]

    @classmethod
    def of(cls, handler: EngineBuilder) -> EngineSource:
        """Describe a handler so that another process can make it again; raise ConfigError if its class cannot be imported there."""
        kind = type(handler)
        if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
            raise ConfigError(
                f"{kind.__qualname__} cannot be imported by an engine process: define it at the top level of a module, "
                "or set handler.engine.process: false"
            )
        model_dir = str(handler.model_dir.absolute())
        return cls(kind.__module__, kind.__qualname__, model_dir, handler.model_name, handler.model_version, asdict(handler.config))

    def sharing_gpus(self, num_sharers: int) -> EngineSource:
        """Return the source of one of ``num_sharers`` engines that divide ``memory_fraction`` among them."""
        engine = self.config["engine"]
        return replace(self, config=self.config | {"engine": engine | {"memory_fraction": engine["memory_fraction"] / num_sharers}})

    def make_handler(self) -> EngineBuilder:
        """Import the class and make the handler again, without ``initialize``; whatever its module raises passes through."""
        kind = reduce(getattr, self.qualname.split("."), importlib.import_module(self.module))
        handler: EngineBuilder = kind()  # type: ignore[operator]
        handler.model_dir, handler.model_name, handler.model_version = Path(self.model_dir), self.model_name, self.model_version
        handler.config = parse_handler_config({"handler": self.config})
        return handler

    def build(self) -> EngineClient:
        """Make the handler, and with it the engine; whatever its module, ``load_model`` or the engine raises passes through."""
        return self.make_handler().build_engine()
