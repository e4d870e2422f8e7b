"""Every mistake in a handler file is found before it is packaged, and said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver.errors import UsageError
from archiver.package.handler_check import HandlerInfo, check_handler_file, inspect_handler, warn_of_hidden_modules
from archiver.package.members import Member, vendored_members

METHODS = "\n    def initialize(self, context): ...\n    def handle(self, data, context): ...\n"


def check(
    tmp_path: Path, source: str, *, name: str = "my_bot.py", extra: dict[str, str] | None = None, requirements: str | None = None
) -> HandlerInfo:
    file = tmp_path / name
    file.write_text(source)
    listing = tmp_path / "requirements.txt"
    listing.write_text(requirements or "")
    check_handler_file(file)
    members = [Member(name, file), *vendored_members(), *(Member(path, text.encode()) for path, text in (extra or {}).items())]
    return inspect_handler(name, members, {}, listing if requirements is not None else None)


def test_a_class_with_both_methods_is_a_handler(tmp_path: Path) -> None:
    assert check(tmp_path, f"class Bot:{METHODS}") == HandlerInfo("Bot", {})


def test_a_module_level_function_is_a_handler_whatever_else_is_there(tmp_path: Path) -> None:
    assert check(tmp_path, "class A: ...\nclass B: ...\ndef handle(data, context): ...").class_name == "handle"


def test_the_class_s_frontend_keys_come_back(tmp_path: Path) -> None:
    source = f"class Bot:{METHODS}    @classmethod\n    def frontend_keys(cls, config): return {{'batchSize': config.engine.max_running}}\n"
    assert check(tmp_path, source) == HandlerInfo("Bot", {"batchSize": 64})


def test_our_own_handler_is_checked_with_the_vendored_package(tmp_path: Path) -> None:
    info = check(tmp_path, "from handlers import CausalLMHandler\nclass Bot(CausalLMHandler): ...")
    assert info.frontend_keys["continuousBatching"] is True


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Bot:\n  def (", r"my_bot.py:2: syntax error"),
        ("class A: ...\nclass B: ...", r"defines 2 classes \(A, B\)"),
        ("", "defines no class"),
        ("from collections import Counter", "defines no class"),
        ("class Bot: ...", r"Bot is no handler: it has no initialize\(\)"),
        ("class Bot:\n    def initialize(self, context): ...", r"Bot is no handler: it has no handle\(\)"),
        ("for name in 'AB':\n    globals()[name] = type(name, (), {})", r"defines 2 classes \(A, B\)"),
        ("import nonesuch.inner", r"imports nonesuch(.inner)?, which is not installed; list it"),
        ("x = 1\n1 / 0", r"cannot be imported: my_bot.py:2: ZeroDivisionError"),
        ("import os; os._exit(3)", r"ends the interpreter \(exit code 3\)"),
        ("import sys; sys.exit('bye')", r"ends the interpreter \(exit code 1\): bye"),
        (f"class Bot:{METHODS}    @classmethod\n    def frontend_keys(cls, config): raise KeyError('x')", "KeyError"),
    ],
)
def test_says_what_is_wrong_with_the_source(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check(tmp_path, source)
    assert "\n" not in str(caught.value)
    assert "my_bot.py" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("handlers.py", "has the name of the package that it imports from"),
        ("service.py", "TorchServe's worker has its own module 'service'"),
        ("json.py", "would hide the installed module 'json'"),
        ("yaml.py", "would hide the installed module 'yaml'"),
        ("my-bot.py", "cannot be imported"),
        ("bot.txt", "cannot be imported"),
    ],
)
def test_says_what_is_wrong_with_the_file_name(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(tmp_path, f"class Bot:{METHODS}", name=name)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        check_handler_file(tmp_path / "bot.py")
    (tmp_path / "bot.py").write_bytes(b"\0\0")
    with pytest.raises(UsageError, match=r"bot.py"):
        check_handler_file(tmp_path / "bot.py")


def test_imports_the_extra_files_and_nothing_beside_the_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside.py").write_text("x = 1")
    monkeypatch.chdir(tmp_path)
    source = f"import beside\nclass Bot:{METHODS}"
    with pytest.raises(UsageError, match="imports beside, which is not installed"):
        check(tmp_path, source)
    assert check(tmp_path, source, extra={"beside.py": "x = 1"}).class_name == "Bot"


def test_a_missing_module_is_a_warning_if_the_requirements_list_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = f"import some_thing.deep as deep\nfrom nonesuch_cv import imread\nVALUE = deep.make(3)\nclass Bot:{METHODS}"
    assert check(tmp_path, source, requirements="# ours\nSome.Thing>=2\nnonesuch-cv==1 ; python_version > '3'\n").class_name == "Bot"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    with pytest.raises(UsageError, match="imports nonesuch_cv, which is not installed"):
        check(tmp_path, source, requirements="some-thing\n")


def test_a_module_that_the_worker_would_not_find_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_hidden_modules(
        [Member("utils/__init__.py", b""), Member("version.py", b""), Member("mine/utils.py", b""), Member("utils.json", b"")]
    )
    assert [record.message.split()[0] for record in caplog.records] == ["utils", "version.py"]


def test_the_import_leaves_no_trace_in_the_author_s_directory(tmp_path: Path) -> None:
    check(tmp_path, f"class Bot:{METHODS}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my_bot.py", "requirements.txt"]
