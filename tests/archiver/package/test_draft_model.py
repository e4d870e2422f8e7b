"""A draft model travels beside the model, if their tokens mean the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.errors import UsageError
from archiver.package import ArchiveSpec, build_archive
from archiver.package.draft_model import speculation_settings
from handlers.integrity import INTEGRITY_FILE
from tests.checkpoints import make_checkpoint

MakeSpec = Callable[..., ArchiveSpec]
DRAFT = {"engine": {"speculation": {"method": "draft"}}}


def test_a_directory_is_a_draft_model_and_ngram_needs_none(tmp_path: Path) -> None:
    draft = make_checkpoint(tmp_path / "small")
    assert speculation_settings(None) == ({}, None)
    assert speculation_settings("ngram") == ({"engine": {"speculation": {"method": "ngram"}}}, None)
    assert speculation_settings(str(draft)) == (DRAFT, draft)
    with pytest.raises(UsageError, match="nowhere"):
        speculation_settings(str(tmp_path / "nowhere"))


def test_it_stands_beside_the_model_and_is_hashed(make_spec: MakeSpec, tmp_path: Path) -> None:
    draft, source = make_checkpoint(tmp_path / "small", seed=7), make_checkpoint(tmp_path / "large")
    archive = build_archive(make_spec(source=source, settings=DRAFT, draft_model=draft, format="dir"))
    assert (archive / "draft" / "model.safetensors").read_bytes() == (draft / "model.safetensors").read_bytes()
    assert (archive / "draft" / "model.safetensors").read_bytes() != (archive / "model" / "model.safetensors").read_bytes()
    assert "draft/config.json" in json.loads((archive / INTEGRITY_FILE).read_text("utf-8"))["members"]


def test_one_without_the_other_is_refused(make_spec: MakeSpec, tmp_path: Path) -> None:
    draft = make_checkpoint(tmp_path / "small")
    with pytest.raises(UsageError, match="name the draft model's checkpoint"):
        build_archive(make_spec(settings=DRAFT))
    with pytest.raises(UsageError, match="method is 'none': set draft"):
        build_archive(make_spec(draft_model=draft))
    elsewhere = {"engine": {"speculation": {"method": "draft", "draft_model": "small"}}}
    with pytest.raises(UsageError, match="stands in 'draft'; leave the key out"):
        build_archive(make_spec(settings=elsewhere, draft_model=draft))


def test_another_vocabulary_is_refused(make_spec: MakeSpec, tmp_path: Path) -> None:
    draft, source = make_checkpoint(tmp_path / "small"), make_checkpoint(tmp_path / "large")
    file = draft / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace("the", "hte"), "utf-8")
    with pytest.raises(UsageError, match="has another vocabulary than"):
        build_archive(make_spec(source=source, settings=DRAFT, draft_model=draft))
    file.write_text("{}", "utf-8")
    with pytest.raises(UsageError, match="is no tokenizer of the tokenizers library"):
        build_archive(make_spec(source=source, settings=DRAFT, draft_model=draft))
