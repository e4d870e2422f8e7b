"""Tool environments: made once, whole or not at all, with this environment's torch."""

from __future__ import annotations

import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from archiver.errors import ArchiverError
from archiver.quantize.environment import cache_home, tool_python


def make_wheel(directory: Path, name: str, release: str) -> None:
    info = f"{name}-{release}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{release}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tool that wants one package; pip sees two wheels and nothing else."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, "torch", version("torch").partition("+")[0])
    make_wheel(wheels, "compressor", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "tool.txt"
    file.write_text("compressor==1.0\n")
    return file


def test_two_that_want_the_same_environment_create_it_once(pins):
    announced: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        pythons = set(pool.map(lambda _: tool_python(pins, announced.append), range(2)))
    (python,) = pythons
    (line,) = announced
    assert str(python.parents[1]) in line
    subprocess.run([python, "-c", "import compressor, torch"], check=True)


@pytest.mark.slow
def test_a_failed_creation_leaves_its_log_only(pins):
    pins.write_text("compressor==2.0\n")
    with pytest.raises(ArchiverError, match=r"cannot install what tool\.txt lists: ERROR: .*compressor==2\.0.* \(its log: "):
        tool_python(pins, lambda line: None)
    assert {file.suffix for file in (cache_home() / "tools").iterdir()} == {".lock", ".log"}
