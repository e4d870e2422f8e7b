"""What a package is named after, and what is said of one that is for something else."""

import json
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from compiled_layers import make_runner, shapes_of

from handlers.engine.compiled import package as package_module
from handlers.engine.compiled.package import Package, Target


@pytest.fixture(scope="module")
def package() -> Package:
    return Package.here(shapes_of(make_runner())[0])


def write(package: Package, directory: Path, **changes: str) -> Path:
    """Write what a package says of itself, where AOTInductor has it."""
    file = directory / package.file_name
    with ZipFile(file, "w") as opened:
        opened.writestr("decode/data/aotinductor/model/c123.wrapper_metadata.json", json.dumps(package.metadata | changes))
    return file


def test_anything_that_the_code_depends_on_changes_the_name(package):
    target, shape = package.target, package.shape
    others = [
        replace(package, target=replace(target, torch="1.0")),
        replace(package, target=replace(target, instructions="sse2")),
        replace(package, shape=replace(shape, block_tokens=64)),
        replace(package, shape=replace(shape, dtype="bfloat16")),
        replace(package, shape=replace(shape, window=7)),
    ]
    assert len({package.file_name, *(other.file_name for other in others)}) == 6
    assert Package.here(shape).file_name == package.file_name


def test_the_processor_is_named_and_its_instruction_sets_listed():
    target = Target.here("cpu")
    assert str(target).startswith("torch ")
    assert target.machine
    assert "hypervisor" not in target.instructions


def test_says_exactly_why_a_package_does_not_fit(package, tmp_path):
    target, shape = package.target, package.shape
    older = replace(package, target=replace(target, torch="2.12.0", machine="AVX2"))
    assert package.misfit(write(older, tmp_path)) == f"compiled for torch 2.12.0 and AVX2, this is {target}"
    other = replace(package, target=replace(target, instructions=f"{target.instructions} avx10"))
    assert package.misfit(write(other, tmp_path)) == f"compiled for a {target.machine} that differs from this one in avx10"
    assert "another model" in package.misfit(write(replace(package, shape=replace(shape, head_dim=7)), tmp_path))
    assert "another version of marquee" in package.misfit(write(package, tmp_path, source="0"))


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_package_is_not_read(package, tmp_path, content):
    file = tmp_path / f"decode{package_module.SUFFIX}"
    file.write_bytes(content)
    assert package.misfit(file) == f"{file.name} cannot be read"
