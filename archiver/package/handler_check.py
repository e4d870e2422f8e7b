"""Check a handler file before it is packaged: what TorchServe would refuse in a worker's log is refused here, with the reason.

First the file's text, then an import in a subprocess with the archive's own modules (``handler_probe``).
"""

from __future__ import annotations

import ast
import json
import logging
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.package import handler_probe
from archiver.package.members import MODEL_DIR, Member

_IMPORT_TIMEOUT_S = 120

# TorchServe 0.12 runs its worker as a script in ts/, so these modules of its own come before a model directory's.
_WORKER_MODULES = frozenset(
    {
        "arg_parser",
        "async_service",
        "configs",
        "context",
        "handler_utils",
        "launcher",
        "llm_launcher",
        "metrics",
        "model_loader",
        "model_server",
        "model_service",
        "model_service_worker",
        "protocol",
        "service",
        "torch_handler",
        "utils",
        "version",
    }
)

# Where the name to import is not the name to install.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "git": "gitpython",
    "jwt": "pyjwt",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HandlerInfo:
    """The handler's class (or ``handle``, for a module-level function) and the frontend keys that it asks for."""

    class_name: str
    frontend_keys: Mapping[str, Any]


def check_handler_file(file: Path) -> None:
    """Check a user's handler by its name and text alone; raises UsageError."""
    if not file.is_file():
        raise UsageError(f"no such file: {file} (--handler)")
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise UsageError(f"{file.name} cannot be imported: a handler is a Python file with a name such as my_handler.py (--handler)")
    _check_module_name(file.name)
    try:
        tree = ast.parse(file.read_bytes(), file.name)
    except SyntaxError as error:
        raise UsageError(f"{file.name}:{error.lineno}: syntax error: {error.msg}") from None
    except ValueError as error:
        raise UsageError(f"{file.name} is not Python source: {error}") from None
    _check_definitions(file.name, tree)


def inspect_handler(
    module_file: str, members: Iterable[Member], model_config: Mapping[str, Any], requirements: Path | None = None
) -> HandlerInfo:
    """Import the handler in a subprocess, beside the archive's own modules, and return what it is.

    A module that is not installed is imitated, with a warning, if ``requirements`` lists it. Raises UsageError.
    """
    listed = _listed_distributions(requirements)
    stand_ins: list[str] = []
    with tempfile.TemporaryDirectory(prefix="marquee-handler-") as scratch:
        model_dir = Path(scratch, "model_dir")
        _lay_out(model_dir, members)
        while True:
            job = {"module": Path(module_file).stem, "model_config": dict(model_config), "stand_ins": stand_ins}
            result = _run_probe(Path(scratch), model_dir, job, module_file)
            if "problem" in result:
                raise UsageError(f"{module_file} {result['problem']}")
            if "missing" not in result:
                return HandlerInfo(result["class_name"], result["frontend_keys"])
            module = result["missing"].partition(".")[0]
            if module in stand_ins or not _is_listed(module, listed):
                raise UsageError(
                    f"{module_file} imports {result['missing']}, which is not installed; list it in a requirements file (--requirements)"
                )
            logger.warning("%s imports %s, which is not installed here; the requirements file lists it", module_file, module)
            stand_ins.append(module)


def warn_of_hidden_modules(members: Iterable[Member]) -> None:
    """Warn of modules in the archive that the worker cannot import, since TorchServe's own of that name come first."""
    tops = {member.path.partition("/")[0] for member in members if member.path.endswith(".py")}
    for top in sorted(top for top in tops if top.removesuffix(".py") in _WORKER_MODULES):
        logger.warning("%s cannot be imported in the worker, which has its own module of that name first on its path; rename it", top)


def _check_module_name(name: str) -> None:
    module = Path(name).stem
    if module == "handlers":
        raise UsageError(f"{name} has the name of the package that it imports from; rename it, for example to my_handler.py")
    if module in _WORKER_MODULES:
        raise UsageError(f"{name} would not be found: TorchServe's worker has its own module {module!r} first on its path; rename the file")
    if module in sys.stdlib_module_names or PathFinder.find_spec(module, [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]):
        raise UsageError(f"{name} would hide the installed module {module!r} in the worker; rename the file")


def _check_definitions(name: str, tree: ast.Module) -> None:
    """Count the classes; one made in another way than by a ``class`` statement at the top is left to the import."""
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    has_entry_point = any(isinstance(node, ast.FunctionDef) and node.name == "handle" for node in tree.body)
    if len(classes) > 1 and not has_entry_point:
        raise UsageError(
            f"{name} defines {len(classes)} classes ({', '.join(classes)}), TorchServe wants one: move the others to a file (--extra)"
        )


def _lay_out(model_dir: Path, members: Iterable[Member]) -> None:
    """Make the model directory as the worker will see it, without the checkpoint; files are linked, not copied."""
    for member in members:
        if member.path.startswith(f"{MODEL_DIR}/"):
            continue
        target = model_dir / member.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(member.content, bytes):
            target.write_bytes(member.content)
        else:
            target.symlink_to(member.content)


def _run_probe(scratch: Path, model_dir: Path, job: Mapping[str, Any], module_file: str) -> dict[str, Any]:
    job_file, result_file = scratch / "job.json", scratch / "result.json"
    job_file.write_text(json.dumps(job, default=str))
    command = [sys.executable, "-P", "-B", handler_probe.__file__, str(job_file), str(result_file)]
    try:
        process = subprocess.run(
            command, check=False, cwd=model_dir, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_IMPORT_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"importing {module_file} takes more than {_IMPORT_TIMEOUT_S} s; move the work into initialize()") from None
    if process.returncode or not result_file.exists():
        last_line = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"importing {module_file} ends the interpreter (exit code {process.returncode}): {last_line}")
    return dict(json.loads(result_file.read_bytes()))


def _listed_distributions(requirements: Path | None) -> frozenset[str]:
    if requirements is None:
        return frozenset()
    names = (re.match(r"[A-Za-z0-9][\w.-]*", line.strip()) for line in requirements.read_text(encoding="utf-8").splitlines())
    return frozenset(_normalize(match[0]) for match in names if match)


def _is_listed(module: str, listed: frozenset[str]) -> bool:
    return _normalize(_DISTRIBUTIONS.get(module, module)) in listed or _normalize(module) in listed


def _normalize(distribution: str) -> str:
    """Return the name as pip compares it (https://packaging.python.org/en/latest/specifications/name-normalization/)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
