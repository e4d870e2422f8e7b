"""The hook contract: what a mixin or an author may override, and the checks made when a handler class is created.

A handler class is composed from mixins, read from the wire to the model, with the TorchServe root last::

    class CausalLMHandler(StreamingMixin, OpenAIMixin, …, TokenizerMixin, TorchServeHandler): ...

Every hook calls ``super()`` exactly once; its docstring says whether first or last. Providers (``inference``) end the chain instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from handlers.config import HandlerConfig
from handlers.requests import Delta, Request
from handlers.telemetry import Metric
from handlers.weights.checkpoint import Checkpoint
from handlers.wire.codec import Codec

LIFECYCLE_HOOKS = frozenset({"frontend_keys", "initialize", "load_model", "load_weights", "routes", "describe", "close"})
STAGE_HOOKS = frozenset({"preprocess", "render", "inference", "emit", "postprocess", "record"})
HOOKS = LIFECYCLE_HOOKS | STAGE_HOOKS


class HandlerHooks:
    """Base of mixins and of the root: every hook, doing nothing.

    ``provides`` names the capabilities that a class adds; ``requires`` maps a capability that it needs from a class further right to the
    mixin that usually adds it. Both are checked when a handler class is created, never when a request comes.
    """

    provides: ClassVar[frozenset[str]] = frozenset()
    requires: ClassVar[Mapping[str, str]] = {}
    is_root: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if any(base.__dict__.get("is_root") for base in cls.__mro__[1:]):
            check_handler_class(cls)

    config: HandlerConfig
    model_dir: Path
    model_name: str
    model_version: str

    @classmethod
    def has_capability(cls, capability: str) -> bool:
        """Whether a class of this handler ``provides`` the capability."""
        return any(capability in base.__dict__.get("provides", ()) for base in cls.__mro__)

    @classmethod
    def frontend_keys(cls, config: HandlerConfig) -> dict[str, Any]:
        """Return what TorchServe's frontend needs at the top level of model-config.yaml (``super()`` first, then update)."""
        return {}

    def initialize(self, context: Any) -> None:
        """Prepare the worker to serve; raise ConfigError if it cannot (``super()`` first)."""

    def load_model(self) -> Any:
        """Load and return the model; runs where the engine runs (``super()`` first, then wrap)."""
        return None

    def load_weights(self, checkpoint: Checkpoint) -> Any:
        """Turn an opened checkpoint into a model, or leave it to ``super()`` if it is another class's to load."""
        return None

    def routes(self) -> dict[str, Codec]:
        """Return the codec of each route below the prediction URL; the bare URL is ``""`` (``super()`` first, then update)."""
        return {}

    def preprocess(self, requests: list[Request]) -> list[Request]:
        """Change messages, prompt, parameters or ``request.extra`` (``super()`` first).

        ``request.fail(status, message)`` refuses a request, ``request.answer(text)`` answers it without the model.
        """
        return requests

    def render(self, requests: list[Request]) -> list[Request]:
        """Turn what was asked into what the model reads; comes after every ``preprocess`` (``super()`` first)."""
        return requests

    def inference(self, requests: list[Request]) -> list[Request]:
        """Run the model, or hand the requests to what runs it. Exactly one class of a handler provides it, without ``super()``."""
        return requests

    def emit(self, request: Request, delta: Delta) -> None:
        """Pass on a new piece of text; the only place where streamed text can be changed (``super()`` last, with the changed delta)."""
        request.text += delta.text

    def postprocess(self, requests: list[Request]) -> list[Request]:
        """See each finished request once: its ``text``, ``extra`` and answer ``fields`` (``super()`` first)."""
        return requests

    def record(self, request: Request) -> None:
        """See each request once, when its fate is known: finished, failed or cancelled (``super()`` first)."""

    def report(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Hand one observation to the server's metrics; the root does, and nobody overrides it."""

    def take_orders(self, commands: Mapping[str, Callable[..., Any]]) -> None:
        """Open the worker's control socket to an operator's commands; the root does, and nobody overrides it."""

    def describe(self) -> dict[str, Any]:
        """Return facts about this worker as plain JSON values (``super()`` first, then update)."""
        return {}

    def close(self) -> None:
        """Release what ``initialize`` took; may be called twice (``super()`` last)."""


def check_handler_class(cls: type[HandlerHooks]) -> None:
    """Raise TypeError, saying what to write instead, if the bases of a handler class cannot work together."""
    mro = [base for base in cls.__mro__ if issubclass(base, HandlerHooks) and base is not HandlerHooks]
    root = next(base for base in mro if base.__dict__.get("is_root"))
    if mro[-1] is not root:
        raise TypeError(f"{cls.__name__}: {root.__name__} must be the last base; move {mro[-1].__name__} to its left")
    _check_requirements(cls, mro)
    providers = [base.__name__ for base in mro if "inference" in base.__dict__.get("provides", ())]
    if len(providers) > 1:
        raise TypeError(f"{cls.__name__}: {' and '.join(providers)} both provide inference(); keep one of them")


def _check_requirements(cls: type[HandlerHooks], mro: list[type[HandlerHooks]]) -> None:
    for index, base in enumerate(mro):
        to_the_right = frozenset().union(*(other.__dict__.get("provides", ()) for other in mro[index + 1 :]))
        for capability, mixin in base.__dict__.get("requires", {}).items():
            if capability not in to_the_right:
                raise TypeError(
                    f"{cls.__name__}: {base.__name__} requires {capability!r} from a base to its right; "
                    f"write class {cls.__name__}(…, {base.__name__}, {mixin}, …, {mro[-1].__name__})"
                )
