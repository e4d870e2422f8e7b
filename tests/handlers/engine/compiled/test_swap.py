"""A real compiler, once, in the background of a running engine; then its package in an archive. And what happens without one."""

import logging
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from compiled_layers import BLOCK, Conversation, make_runner, shapes_of
from engine_fakes import FakeRunner
from tiny_models import CONFIGS, EOS, VOCAB_SIZE, make_model

from archiver.package import ArchiveSpec, build_archive, verify_archive
from archiver.package.compilation import with_compiled_step
from handlers.config import COMPILED_DIR, EngineConfig
from handlers.engine.build import build_engine_client
from handlers.engine.compiled.compiler import CompilationError, compile_package
from handlers.engine.compiled.layers import CompiledLayers
from handlers.engine.compiled.package import Package
from handlers.engine.compiled.swap import compile_layers
from handlers.errors import IntegrityError
from handlers.integrity import verify_directory
from tests.checkpoints import make_tokenizer

_rng = random.Random(2)
PROMPTS = [[_rng.randrange(VOCAB_SIZE) for _ in range(_rng.randint(1, 60))] for _ in range(6)]
MAX_TOKENS = 60

pytestmark = pytest.mark.timeout(600)  # a compilation takes half a minute of two cores


class Compiled(NamedTuple):
    """The user's cache after a compilation, and what an engine said before and after the exchange."""

    cache_home: Path
    tokens: list[list[int]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Compiled:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        runner = make_runner()
        conversation = Conversation(runner, PROMPTS, MAX_TOKENS)
        thread = compile_layers(runner, None)
        assert thread is not None
        for _ in range(10):  # the first tokens wait for nobody
            conversation.step()
        assert not isinstance(runner.layers, CompiledLayers)
        thread.join()
        assert isinstance(runner.layers, CompiledLayers)
        return Compiled(home, conversation.finish())


@pytest.fixture
def cache(compiled, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(compiled.cache_home))
    return compiled.cache_home / "marquee" / "compiled"


def test_an_engine_goes_on_with_compiled_layers_where_it_was_and_says_the_same(compiled):
    assert compiled.tokens == Conversation(make_runner(), PROMPTS, MAX_TOKENS).finish()
    assert all(len(tokens) == MAX_TOKENS for tokens in compiled.tokens)


def test_the_next_start_finds_it_and_uses_it_at_once(cache, compiled, caplog):
    caplog.set_level(logging.INFO)
    runner = make_runner()
    assert compile_layers(runner, None) is None
    assert isinstance(runner.layers, CompiledLayers)
    assert "compiled decode step: used (torch" in caplog.text
    assert Conversation(runner, PROMPTS, MAX_TOKENS).finish() == compiled.tokens
    [package] = cache.glob("*.pt2")
    assert package.stat().st_size < 2**21
    assert cache.stat().st_mode & 0o077 == 0


def test_sequences_that_run_do_not_notice(cache, compiled):
    runner = make_runner()
    conversation = Conversation(runner, PROMPTS, MAX_TOKENS)
    for _ in range(25):
        conversation.step()
    compile_layers(runner, None)
    assert conversation.finish() == compiled.tokens


def test_an_archive_brings_it_to_another_machine_of_the_kind(cache, compiled, tmp_path, monkeypatch, caplog):
    settings = {"engine": {"block_tokens": BLOCK}}
    spec = ArchiveSpec(write_checkpoint(tmp_path / "checkpoint"), "plain", settings=settings, format="dir", out=tmp_path)
    directory = build_archive(with_compiled_step(replace(spec, name="compiled")))
    assert verify_archive(directory).ok
    verify_directory(directory, required=True)
    [package] = (directory / COMPILED_DIR).iterdir()
    assert package.read_bytes() == (cache / package.name).read_bytes()
    plain = build_archive(spec)
    changed = {file for file in files(directory) | files(plain) if read(directory, file) != read(plain, file)}
    assert changed == {f"{COMPILED_DIR}/{package.name}", "model-config.yaml", "MAR-INF/MANIFEST.json", "MAR-INF/integrity.json"}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    caplog.set_level(logging.INFO)
    runner = make_runner()
    assert compile_layers(runner, directory / COMPILED_DIR) is None
    assert Conversation(runner, PROMPTS, MAX_TOKENS).finish() == compiled.tokens
    assert "used (torch" in caplog.text

    (directory / COMPILED_DIR / "decode-0123.pt2").touch()
    with pytest.raises(IntegrityError, match=r"added compiled/decode-0123\.pt2"):
        verify_directory(directory)


def test_a_package_for_something_else_is_not_used_and_said_so(cache, tmp_path, monkeypatch, caplog):
    [package] = cache.glob("*.pt2")
    (tmp_path / package.name).write_bytes(package.read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    runner = make_runner(CONFIGS["qwen3"])
    thread = compile_layers(runner, tmp_path)
    assert "compiled for another model, dtype or block_tokens: not used" in caplog.text
    assert thread is not None
    thread.join()
    assert not isinstance(runner.layers, CompiledLayers)


def test_without_a_compiler_it_is_a_warning_and_serving_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    runner = make_runner()
    thread = compile_layers(runner, None)
    assert thread is not None
    thread.join()
    assert "not used, as it cannot be compiled: there is no C++ compiler (g++)" in caplog.text
    assert len(caplog.text.splitlines()) == 1
    assert len(Conversation(runner, PROMPTS[:1], 3).finish()[0]) == 3


def test_the_operator_asks_for_it(cache, compiled, caplog):
    caplog.set_level(logging.INFO)
    config = EngineConfig(compile=True, block_tokens=BLOCK, prefill_chunk_tokens=32, kv_memory_gib=0.01)
    client = build_engine_client(make_model(CONFIGS["llama"]), config, eos_token_ids=frozenset([EOS]))
    client.close()
    assert "compiled decode step: used (torch" in caplog.text


def test_faster_kernels_stay(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert compile_layers(FakeRunner(), tmp_path) is None
    assert "compiled decode step: not used, as FakeRunner is faster or cannot be compiled" in caplog.text


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_package_is_a_warning_and_serving_goes_on(tmp_path, monkeypatch, caplog, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runner = make_runner()
    directory = tmp_path / COMPILED_DIR
    directory.mkdir()
    (directory / Package.here(shapes_of(runner)[0]).file_name).write_bytes(content)
    assert compile_layers(runner, directory) is None
    assert "compiled decode step: not used, as it fails" in caplog.text
    assert len(Conversation(runner, PROMPTS[:1], 3).finish()[0]) == 3


def test_a_cache_that_others_may_write_to_is_not_used(tmp_path, monkeypatch, caplog):
    directory = tmp_path / "marquee" / "compiled"
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_layers(make_runner(), None) is None
    assert "others may write to" in caplog.text


@pytest.mark.slow
def test_a_compiler_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    package = Package.here(shapes_of(make_runner())[0])
    cut_short = tmp_path / f".{Path(package.file_name).stem}"
    cut_short.mkdir()
    (cut_short / "kernel.cpp").touch()
    with pytest.raises(CompilationError):
        compile_package(package, tmp_path)
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), [("qwen2", torch.bfloat16), ("qwen3", torch.float32), ("mistral-sliding", torch.bfloat16)])
def test_every_kind_of_layer_can_be_compiled(tmp_path, monkeypatch, name, dtype):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runner = make_runner(CONFIGS[name], dtype)
    thread = compile_layers(runner, None)
    assert thread is not None
    thread.join()
    assert isinstance(runner.layers, CompiledLayers)


def write_checkpoint(directory: Path) -> Path:
    """Write a model with layers of the same shape as those that were compiled."""
    make_model(CONFIGS["llama"]).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def files(directory: Path) -> set[str]:
    return {file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file()}


def read(directory: Path, file: str) -> bytes:
    return (directory / file).read_bytes() if (directory / file).exists() else b""
