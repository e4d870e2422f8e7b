"""Who may import whom: the design's import rules, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

VOCABULARY = {
    f"handlers.{module}"
    for module in ("errors", "requests", "config", "integrity", "gguf_file", "memory_ledger", "host_limits", "tensor_parallel")
}
# What crosses between TorchServe and a handler: as basic as the vocabulary, but no business of the archiver's.
SHARED = VOCABULARY | {"handlers.frontend", "handlers.time_ledger"}
# What components are built on: they import the vocabulary only.
FOUNDATIONS = {"handlers.native"}
COMPONENTS = {"handlers.engine", "handlers.text", "handlers.wire", "handlers.weights", "handlers.quant", "handlers.telemetry"}
# Weights come in formats, which `quant` knows.
ALSO = {"handlers.weights": {"handlers.quant"}}
CONCRETE = {"handlers.causal_lm", "handlers.batched_causal_lm"}
HEAVY = {"torch", "transformers", "ts", "accelerate", "safetensors"}


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports(file: Path, *, at_module_level: bool = False) -> set[str]:
    """Return the modules that a file imports; ``from a import b`` counts as ``a.b`` where that is a module of ours."""
    tree = ast.parse(file.read_text())
    nodes = _run_at_import(tree) if at_module_level else ast.walk(tree)
    return {name for node in nodes for name in _imported(node)}


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        is_type_checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking:
            continue
        yield child
        yield from _run_at_import(child)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            path = ROOT.joinpath(*node.module.split("."), alias.name)
            is_module = path.is_dir() or path.with_suffix(".py").is_file()
            yield f"{node.module}.{alias.name}" if is_module else node.module


def is_in(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


HANDLERS = dict(modules("handlers"))
ARCHIVER = dict(modules("archiver"))


@pytest.mark.parametrize("module", HANDLERS)
def test_handlers_never_import_the_archiver(module):
    assert not [name for name in imports(HANDLERS[module]) if is_in(name, {"archiver"})]


@pytest.mark.parametrize("module", ARCHIVER)
def test_the_archiver_imports_the_vocabulary_of_the_handlers_only(module):
    allowed = VOCABULARY | {f"handlers.quant.{module}" for module in ("formats", "machine", "preflight", "quantization_config")}
    if is_in(module, {"archiver.deploy"}):  # gives running workers orders
        allowed |= {"handlers.control_socket", "handlers.worker_directory"}
    if is_in(module, {"archiver.quantize"}):
        allowed |= {"handlers.quant", "handlers.weights", "handlers.native", "handlers.engine", "handlers.text"}
    if is_in(module, {"archiver.package.compilation"}):  # compiles what the engine looks for
        allowed |= {"handlers.engine.compiled", "handlers.native", "handlers.weights"}
    if is_in(module, {"archiver.plan"}):
        allowed |= {"handlers.quant"}
    if is_in(module, {"archiver.plan.simulation"}):  # replays the real one
        allowed |= {f"handlers.engine.{module}" for module in ("scheduler", "sequence", "prefix_cache", "blocks", "admission")}
    assert not [name for name in imports(ARCHIVER[module]) if name.startswith("handlers.") and not is_in(name, allowed)]


@pytest.mark.parametrize("module", sorted(SHARED))
def test_the_vocabulary_imports_only_itself(module):
    assert not [name for name in imports(HANDLERS[module]) if name.startswith("handlers") and name not in SHARED]


@pytest.mark.parametrize("module", [module for module in HANDLERS if is_in(module, COMPONENTS)])
def test_components_import_the_vocabulary_and_never_each_other(module):
    own = {component for component in COMPONENTS if is_in(module, {component})}
    allowed = SHARED | FOUNDATIONS | own | {name for component in own for name in ALSO.get(component, ())}
    assert not [name for name in imports(HANDLERS[module]) if name.startswith("handlers.") and not is_in(name, allowed)]


@pytest.mark.parametrize("module", [module for module in HANDLERS if is_in(module, FOUNDATIONS)])
def test_foundations_import_the_vocabulary_and_each_other(module):
    assert not [name for name in imports(HANDLERS[module]) if name.startswith("handlers.") and not is_in(name, SHARED | FOUNDATIONS)]


@pytest.mark.parametrize("module", [module for module in HANDLERS if not is_in(module, COMPONENTS | CONCRETE)])
def test_only_ready_made_handlers_know_the_concrete_classes(module):
    assert not [name for name in imports(HANDLERS[module]) if is_in(name, CONCRETE)]


@pytest.mark.parametrize("module", [module for module in HANDLERS if not module.startswith("handlers.torchserve")])
def test_torchserve_is_imported_in_one_place(module):
    assert not [name for name in imports(HANDLERS[module]) if is_in(name, {"ts"})]


@pytest.mark.parametrize("module", [module for module in HANDLERS if is_in(module, SHARED | {"handlers.hooks", "handlers.mixins"})])
def test_mixins_and_vocabulary_import_nothing_heavy_at_module_level(module):
    assert not [name for name in imports(HANDLERS[module], at_module_level=True) if is_in(name, HEAVY)]


WITHOUT_HEAVY = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY - {"safetensors"}}:
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Absent())
import archiver.cli
from handlers import *
"""


def test_everything_public_can_be_imported_without_torch_and_torchserve():
    subprocess.run([sys.executable, "-c", WITHOUT_HEAVY], cwd=ROOT, check=True, timeout=60)
