"""The wheel, installed with the base dependencies alone, is a working ``marquee`` with its data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from archiver.package import ArchiveSpec, build_archive
from tests.checkpoints import make_checkpoint

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    # A copy: setuptools leaves build/ behind, and would put modules that were deleted since into the next wheel.
    source = tmp_path_factory.mktemp("source")
    for name in ("handlers", "archiver", "config"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", source, "--no-deps", "--wheel-dir", directory)
    (file,) = directory.glob("marquee-*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, symlinks=True)
    pip("--python", directory / "bin" / "python", "install", "--constraint", CONSTRAINTS, wheel)
    return directory / "bin"


def run(environment: Path, program: str, *arguments: str | Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [environment / program, *arguments]
    done = subprocess.run(command, cwd=environment, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_holds_every_module_and_all_configuration(wheel):
    sources = [file for package in ("handlers", "archiver") for file in (ROOT / package).rglob("*.*")]
    wanted = {file.relative_to(ROOT) for file in sources if file.suffix in (".py", ".c", ".h")}
    wanted |= {Path("archiver") / file.relative_to(ROOT) for file in (ROOT / "config").rglob("*") if file.is_file()}
    with zipfile.ZipFile(wheel) as members:
        held = {Path(name) for name in members.namelist()}
    assert {path for path in held if not path.parts[0].endswith(".dist-info")} == wanted


def test_base_dependencies_are_light(environment):
    script = "import importlib.metadata; print(*(each.name.lower() for each in importlib.metadata.distributions()))"
    installed = set(run(environment, "python", "-c", script).split())
    assert not {"torch", "transformers", "torchserve", "numpy"} & installed


def test_help_and_imports_work(environment):
    assert "serve" in run(environment, "marquee", "--help")
    run(environment, "python", "-c", "import handlers, archiver; from handlers import CausalLMHandler")


def test_configuration_data_is_found(environment):
    script = "from archiver.configuration import config_path; print(config_path('config.properties').read_text(), end='')"
    assert run(environment, "python", "-c", script) == (ROOT / "config" / "config.properties").read_text()


def test_archives_can_be_verified_and_inspected(environment, tmp_path):
    archive = build_archive(ArchiveSpec(make_checkpoint(tmp_path / "bot"), "bot", out=tmp_path))
    assert "ok" in run(environment, "marquee", "verify", archive)
    assert "LlamaForCausalLM" in run(environment, "marquee", "inspect", archive)
