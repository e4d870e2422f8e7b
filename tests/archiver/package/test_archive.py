"""Building: the right members, the same bytes every time, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest
import yaml

from archiver.errors import ArchiverError, UsageError
from archiver.package import ArchiveSpec, build_archive
from handlers.integrity import INTEGRITY_FILE, MANIFEST_FILE, verify_directory

MakeSpec = Callable[..., ArchiveSpec]


def contents(archive: Path) -> dict[str, bytes]:
    if archive.is_dir():
        return {file.relative_to(archive).as_posix(): file.read_bytes() for file in archive.rglob("*") if file.is_file()}
    with ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert len(opened.namelist()) == len(set(opened.namelist()))
        return {name: opened.read(name) for name in opened.namelist()}


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_holds_what_serving_needs_and_nothing_else(make_spec: MakeSpec, checkpoint: Path) -> None:
    members = contents(build_archive(make_spec()))
    own = {path for path in members if not path.startswith("handlers/")}
    model = {"model/chat_template.jinja", "model/config.json", "model/model.safetensors", "model/tokenizer.json"}
    assert own == {MANIFEST_FILE, INTEGRITY_FILE, "model-config.yaml", "plain_bot.py"} | model
    assert members["model/model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
    assert "handlers/integrity.py" in members
    assert not any("__pycache__" in path for path in members)
    assert json.loads(members[MANIFEST_FILE])["model"]["handler"] == "plain_bot.py"


def test_both_formats_hold_the_same_and_pass_the_worker_s_check(make_spec: MakeSpec, tmp_path: Path) -> None:
    mar, directory = build_archive(make_spec()), build_archive(make_spec(format="dir"))
    assert contents(mar) == contents(directory)
    verify_directory(directory, required=True)
    with ZipFile(mar) as opened:
        opened.extractall(tmp_path / "unpacked")
    verify_directory(tmp_path / "unpacked", required=True)


def test_the_generated_handler_is_a_continuous_one(make_spec: MakeSpec) -> None:
    members = contents(build_archive(make_spec(handler=None)))
    assert b"class ModelHandler(CausalLMHandler)" in members["handler.py"]
    keys = yaml.safe_load(members["model-config.yaml"])
    assert keys["continuousBatching"] is True
    assert "handler" not in keys


def test_the_same_archive_built_twice_is_identical(
    make_spec: MakeSpec, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_archive(make_spec()).read_bytes()
    moved = tmp_path / "elsewhere" / "tiny-model"
    moved.parent.mkdir()
    shutil.copytree(checkpoint, moved)
    for file in moved.iterdir():
        os.utime(file, (1, 1))
        file.chmod(0o600)
    monkeypatch.chdir(tmp_path / "elsewhere")
    spec = make_spec(source=Path("tiny-model"), out=Path("other/store"))
    assert build_archive(spec).read_bytes() == first
    assert build_archive(spec).read_bytes() == first


def test_stores_every_member(make_spec: MakeSpec) -> None:
    with ZipFile(build_archive(make_spec())) as opened:
        assert {info.compress_type for info in opened.infolist()} == {ZIP_STORED}
        assert {info.flag_bits & 0x8 for info in opened.infolist()} == {0}


def test_places_extra_files_like_torch_model_archiver(make_spec: MakeSpec, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "lexicon").mkdir(parents=True)
    (bundle / "lexicon/words.txt").write_text("a")
    (bundle / "top.py").write_text("")
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__/top.pyc").touch()
    (tmp_path / "single.json").write_text("{}")
    members = contents(build_archive(make_spec(extra=(bundle, tmp_path / "single.json"))))
    assert {"lexicon/words.txt", "top.py", "single.json"} <= members.keys()
    assert not any("pycache" in path for path in members)


@pytest.mark.parametrize(
    "path", ["model-config.yaml", "model/config.json", "handlers/integrity.py", "MAR-INF/integrity.json", "plain_bot.py", "Model"]
)
def test_extra_files_cannot_replace_members(make_spec: MakeSpec, tmp_path: Path, path: str) -> None:
    extra = tmp_path / "extra" / path
    extra.parent.mkdir(parents=True)
    extra.write_text("")
    with pytest.raises(UsageError, match="would stand twice in the archive"):
        build_archive(make_spec(extra=(tmp_path / "extra",)))


def test_requirements_are_named_in_the_manifest(make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("six\n")
    members = contents(build_archive(make_spec(requirements=tmp_path / "needs.txt")))
    assert members["requirements.txt"] == b"six\n"
    assert json.loads(members[MANIFEST_FILE])["model"]["requirementsFile"] == "requirements.txt"


def test_settings_reach_the_configuration(make_spec: MakeSpec) -> None:
    members = contents(build_archive(make_spec(settings={"integrity": "required"})))
    assert yaml.safe_load(members["model-config.yaml"]) == {"handler": {"integrity": "required"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my model"}, "model name"),
        ({"version": "1/2"}, "model version"),
        ({"extra": (Path("nowhere"),)}, r"no such file or directory: nowhere \(--extra\)"),
        ({"handler": Path("nowhere.py")}, r"no such file: nowhere.py \(--handler\)"),
        ({"requirements": Path("nowhere.txt")}, r"no such file: nowhere.txt \(--requirements\)"),
        ({"settings": {"model": {"path": "weights"}}}, r"leave the key out"),
        ({"settings": {"tokenizer": {"chat_template": "x.jinja"}}}, r"not in the archive; add the file \(--extra\)"),
    ],
)
def test_says_in_one_line_what_cannot_be_packaged(make_spec: MakeSpec, changes: dict[str, object], message: str) -> None:
    spec = make_spec(**changes)
    with pytest.raises(UsageError, match=message):
        build_archive(spec)
    assert left_in(spec.out) == []


def test_linked_weights_take_no_space_and_copied_ones_stand_alone(make_spec: MakeSpec, checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    linked = build_archive(make_spec(format="dir", link=True, name="linked"))
    copied = build_archive(make_spec(format="dir", name="copied"))
    assert (linked / "model/model.safetensors").samefile(weights)
    assert not (copied / "model/model.safetensors").samefile(weights)
    assert not (linked / "plain_bot.py").samefile(make_spec().handler)  # type: ignore[arg-type]
    verify_directory(linked, required=True)


def test_weights_behind_symbolic_links_are_linked_themselves(make_spec: MakeSpec, checkpoint: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (checkpoint / "model.safetensors").rename(blob)
    (checkpoint / "model.safetensors").symlink_to(blob)
    linked = build_archive(make_spec(format="dir", link=True)) / "model/model.safetensors"
    assert linked.samefile(blob)
    assert not linked.is_symlink()


@pytest.mark.parametrize("format", ["mar", "dir"])
def test_replaces_an_earlier_archive(make_spec: MakeSpec, format: str) -> None:
    build_archive(make_spec(format=format, version="1.0"))
    archive = build_archive(make_spec(format=format, version="2.0"))
    assert json.loads(contents(archive)[MANIFEST_FILE])["model"]["modelVersion"] == "2.0"
    assert left_in(archive.parent) == [archive.name]


@pytest.mark.parametrize("format", ["mar", "dir"])
def test_never_replaces_a_directory_that_is_no_archive(make_spec: MakeSpec, format: str) -> None:
    spec = make_spec(format=format)
    precious = spec.target / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.touch()
    with pytest.raises(UsageError, match="exists and is no archive"):
        build_archive(spec)
    assert precious.exists()


@pytest.mark.parametrize("format", ["mar", "dir"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_build_leaves_nothing(make_spec: MakeSpec, format: str, error: type[BaseException]) -> None:
    spec = make_spec(format=format)

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise error

    with pytest.raises(error):
        build_archive(spec, progress=interrupt)
    assert left_in(spec.out) == []


def test_progress_ends_at_the_total(make_spec: MakeSpec) -> None:
    steps: list[tuple[int, int]] = []
    build_archive(make_spec(), progress=lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


def test_a_full_disk_is_noticed_before_anything_is_written(make_spec: MakeSpec) -> None:
    spec = make_spec()
    with pytest.raises(ArchiverError, match=r"has 0.0 GiB free and the archive takes 0.0 GiB; make room") as caught:
        build_archive(spec, free_bytes=lambda directory: 1000)
    assert caught.value.exit_code == 1
    assert left_in(spec.out) == []


def test_linked_weights_need_no_room(make_spec: MakeSpec, checkpoint: Path) -> None:
    with (checkpoint / "model.safetensors").open("r+b") as file:
        header = json.dumps({"w": {"dtype": "U8", "shape": [2**26], "data_offsets": [0, 2**26]}}).encode()
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**26)
    with pytest.raises(ArchiverError, match="make room"):
        build_archive(make_spec(format="dir"), free_bytes=lambda directory: 60 * 2**20)
    assert build_archive(make_spec(format="dir", link=True), free_bytes=lambda directory: 60 * 2**20).is_dir()


def test_a_disk_that_fails_is_one_line(make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the directory should be")
    with pytest.raises(ArchiverError, match="cannot write") as caught:
        build_archive(make_spec())
    assert "\n" not in str(caught.value)
