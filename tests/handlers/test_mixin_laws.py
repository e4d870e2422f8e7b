"""The laws of the design that keep mixins small, checked over every class that the package exports."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import handlers
from handlers.hooks import HOOKS, HandlerHooks
from handlers.torchserve import TorchServeHandler

CLASSES: list[type[HandlerHooks]] = [
    value
    for name in handlers.__all__
    if isinstance(value := getattr(handlers, name), type) and issubclass(value, HandlerHooks) and value is not HandlerHooks
]
MIXINS = [cls for cls in CLASSES if not issubclass(cls, TorchServeHandler)]
CONCRETE = [cls for cls in CLASSES if issubclass(cls, TorchServeHandler) and cls is not TorchServeHandler]
DECLARATIONS = {"provides", "requires", "is_root"}
HEAVY = {"torch", "transformers", "ts"}

every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
every_mixin = pytest.mark.parametrize("cls", MIXINS, ids=lambda cls: cls.__name__)


def syntax(cls: type) -> ast.ClassDef:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    return node


def methods(cls: type) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in syntax(cls).body if isinstance(node, ast.FunctionDef)}


def assigned(node: ast.AST) -> set[str]:
    """Return the attributes that are set on ``self`` inside of ``node``."""
    stores = (item for item in ast.walk(node) if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store))
    return {item.attr for item in stores if isinstance(item.value, ast.Name) and item.value.id == "self"}


def owned(cls: type[HandlerHooks]) -> set[str]:
    """Return the public names that a class adds: what it assigns or defines, but not what it requires from others."""
    declared = set(cls.__annotations__) | set(cls.__dict__) | assigned(syntax(cls))
    return {name for name in declared - HOOKS - DECLARATIONS - set(cls.__dict__.get("requires", ())) if not name.startswith("_")}


def test_there_is_something_to_check() -> None:
    assert len(MIXINS) >= 8
    assert len(CONCRETE) >= 2
    modules = {path.stem for path in Path(handlers.__path__[0], "mixins").glob("*.py")} - {"__init__"}
    assert {cls.__module__.rsplit(".")[-1] for cls in MIXINS} == modules, "a mixin is not exported"


@every_class
def test_no_constructor(cls: type) -> None:
    assert "__init__" not in cls.__dict__


@every_class
def test_one_class_a_file_and_a_small_one(cls: type) -> None:
    module = ast.parse(Path(inspect.getfile(cls)).read_text())
    assert [node.name for node in module.body if isinstance(node, ast.ClassDef)] == [cls.__name__]
    assert len(inspect.getsource(cls).splitlines()) <= 80


@every_mixin
def test_at_most_one_public_attribute(cls: type[HandlerHooks]) -> None:
    attributes = owned(cls) - set(methods(cls))
    assert len(attributes) <= 1, attributes


@pytest.mark.parametrize(("left", "right"), list(combinations(MIXINS, 2)), ids=lambda cls: cls.__name__)
def test_no_name_is_shared_by_two_mixins(left: type[HandlerHooks], right: type[HandlerHooks]) -> None:
    assert not owned(left) & owned(right)


@every_mixin
def test_a_hook_calls_super_exactly_once_and_a_provider_does_not(cls: type[HandlerHooks]) -> None:
    for name, method in methods(cls).items():
        if name in HOOKS:
            called = Counter(
                item.attr
                for item in ast.walk(method)
                if isinstance(item, ast.Attribute)
                and isinstance(item.value, ast.Call)
                and isinstance(item.value.func, ast.Name)
                and item.value.func.id == "super"
            )
            expected = {"inference": [Counter()], "load_weights": [Counter(), Counter([name])]}.get(name, [Counter([name])])
            assert called in expected, name


@every_mixin
def test_only_initialize_sets_attributes(cls: type) -> None:
    """So that no request's state ends up on the handler."""
    for name, method in methods(cls).items():
        assert name == "initialize" or not assigned(method), name


@every_class
def test_nothing_heavy_is_imported_with_the_module(cls: type) -> None:
    module = ast.parse(Path(inspect.getfile(cls)).read_text())
    imported: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert not imported & HEAVY


@every_mixin
def test_the_docstring_says_what_it_adds_owns_and_requires(cls: type) -> None:
    docstring = inspect.getdoc(cls) or ""
    assert all(word in docstring for word in ("Adds", "Owns", "Require")), docstring


@every_class
def test_every_public_method_has_a_docstring(cls: type) -> None:
    for name, method in methods(cls).items():
        assert name.startswith("_") or ast.get_docstring(method), name


def test_every_hook_says_when_to_call_super() -> None:
    for name in HOOKS:
        assert "super()" in (inspect.getdoc(getattr(HandlerHooks, name)) or ""), name


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda cls: cls.__name__)
def test_a_concrete_handler_is_a_list_of_bases(cls: type) -> None:
    body = syntax(cls).body
    assert (body[-1].end_lineno or 0) - body[0].lineno + 1 <= 10


@pytest.mark.parametrize(
    "statement",
    [
        "import handlers",
        "from handlers import ConfigError, HandlerHooks, Request, StreamingMixin",
        "from handlers import BatchedCausalLMHandler, CausalLMHandler",
    ],
)
def test_importing_handlers_imports_neither_torch_nor_torchserve(statement: str) -> None:
    program = f"import sys; {statement}; print(sorted({HEAVY} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert result.stdout.strip() == "[]"


def test_the_package_lists_its_public_names() -> None:
    assert set(handlers.__all__) <= set(dir(handlers))
    with pytest.raises(AttributeError, match="no attribute 'CausalLM'"):
        _ = handlers.CausalLM


class TestClassCreation:
    """A class that cannot work is refused when it is defined, with a message that says what to write."""

    def test_the_root_must_be_last(self) -> None:
        with pytest.raises(TypeError, match="TorchServeHandler must be the last base; move TokenizerMixin to its left"):
            type("Bot", (TorchServeHandler, handlers.TokenizerMixin), {})

    def test_a_missing_requirement_is_named_with_the_mixin_to_add(self) -> None:
        want = r"OpenAIMixin requires 'checkpoint' from a base to its right; write class Bot\(…, OpenAIMixin, CheckpointMixin, …, TorchS"
        with pytest.raises(TypeError, match=want):
            type("Bot", (handlers.OpenAIMixin, TorchServeHandler), {})

    def test_a_requirement_on_the_wrong_side_is_missing(self) -> None:
        with pytest.raises(TypeError, match="OpenAIMixin requires 'checkpoint'"):
            type("Bot", (handlers.CheckpointMixin, handlers.OpenAIMixin, TorchServeHandler), {})
        type("Bot", (handlers.OpenAIMixin, handlers.CheckpointMixin, TorchServeHandler), {})

    def test_two_providers_are_one_too_many(self) -> None:
        bases = (
            handlers.ContinuousGenerationMixin,
            handlers.BatchedGenerationMixin,
            handlers.CheckpointMixin,
            handlers.TokenizerMixin,
            TorchServeHandler,
        )
        with pytest.raises(TypeError, match=r"ContinuousGenerationMixin and BatchedGenerationMixin both provide inference\(\); keep one"):
            type("Bot", bases, {})

    @pytest.mark.parametrize("base", CONCRETE, ids=lambda cls: cls.__name__)
    def test_a_subclass_may_override_any_hook(self, base: type) -> None:
        overrides: dict[str, Any] = {name: getattr(base, name) for name in HOOKS - {"frontend_keys"}}
        assert issubclass(type("Bot", (base,), overrides), base)

    def test_a_mixin_of_the_authors_own_joins_in(self) -> None:
        class Shout(HandlerHooks):
            requires = {"inference": "ContinuousGenerationMixin"}

        class Bot(Shout, handlers.CausalLMHandler):
            pass

        assert Bot.has_capability("streaming") and not Bot.has_capability("shouting")
        with pytest.raises(TypeError, match="Shout requires 'inference'"):
            type("Bot", (Shout, TorchServeHandler), {})

    def test_a_mixin_may_refine_a_provider(self) -> None:
        class Refined(handlers.ContinuousGenerationMixin):
            def inference(self, requests: list[handlers.Request]) -> list[handlers.Request]:
                return super().inference(requests)

        type("Bot", (Refined, handlers.CheckpointMixin, handlers.TokenizerMixin, TorchServeHandler), {})
