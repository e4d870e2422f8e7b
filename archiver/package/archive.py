"""Build an archive: the handler, the code that was tested, the configuration, the checkpoint, and the hashes of all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from archiver.errors import ArchiverError, UsageError
from archiver.package.checkpoint import read_checkpoint
from archiver.package.directory import DirectoryWriter, is_linkable
from archiver.package.draft_model import draft_members
from archiver.package.handler_check import check_handler_file, inspect_handler, warn_of_hidden_modules
from archiver.package.manifest import create_manifest
from archiver.package.mar import MarWriter
from archiver.package.members import MODEL_DIR, Member, check_members, checkpoint_members, extra_members, vendored_members
from archiver.package.model_config import CONFIG_FILE, handler_config, load_model_config, render_model_config
from archiver.package.names import check_model_name, check_model_version
from archiver.package.staging import staged_directory, staged_file
from archiver.package.transfer import ByteCounter, OnBytes
from archiver.quantize.receipt import Receipt, is_rejected
from handlers.config import COMPILED_DIR
from handlers.integrity import INTEGRITY_FILE, MANIFEST_FILE, IntegrityRecord, MemberHash, Progress, installed_versions
from handlers.memory_ledger import PLAN_FILE

REQUIREMENTS_FILE = "requirements.txt"
_SPARE_BYTES = 16 * 2**20  # headers, the hashes, the file system's own

_GENERATED_HANDLER = Member(
    "handler.py",
    b'''"""Serves this archive's model; generated, because TorchServe wants one class that is defined in the handler's own file."""

from handlers import CausalLMHandler


class ModelHandler(CausalLMHandler):
    """A causal language model with continuous batching, streaming and the OpenAI API."""
''',
)


@dataclass(frozen=True)
class ArchiveSpec:
    """What to build, and where.

    ``source``: a checkpoint directory. ``handler``: a user's handler file; None generates one. ``extra``: files, and directories whose
    content goes to the top level. ``config``: a model-config.yaml to start from; ``settings``: what wins over its ``handler:`` section.
    ``frontend``: TorchServe's keys, over those of the handler's class and below those of ``config``. ``plan``: the content of plan.json.
    ``format``: a ``.mar`` file, or a directory, in which ``link`` makes hard links of the checkpoint's files. ``out``: the model store.
    ``draft_model``: a smaller checkpoint that guesses what this one says, where ``engine.speculation.method`` is "draft".
    ``compiled``: packages of its decode step (``with_compiled_step``), which an engine uses where ``engine.compile`` is set.
    ``accept_rejected``: package a checkpoint that lost more quality, when it was quantized, than its budget allowed.
    """

    source: Path
    name: str
    version: str = "1.0"
    handler: Path | None = None
    extra: tuple[Path, ...] = ()
    requirements: Path | None = None
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    frontend: Mapping[str, Any] = field(default_factory=dict)
    plan: bytes | None = None
    draft_model: Path | None = None
    compiled: tuple[Path, ...] = ()
    format: Literal["mar", "dir"] = "mar"
    out: Path = Path("model_store")
    link: bool = False
    accept_rejected: bool = False

    @property
    def target(self) -> Path:
        """Where the archive will stand."""
        return self.out / (f"{self.name}.mar" if self.format == "mar" else self.name)


class ArchiveWriter(Protocol):
    """Takes an archive's members one after the other."""

    def add(self, member: Member) -> MemberHash:
        """Write one member and return its hash."""


def build_archive(spec: ArchiveSpec, *, progress: Progress | None = None, free_bytes: Callable[[Path], int] | None = None) -> Path:
    """Build the archive and return its path; equal inputs give equal bytes, wherever and whenever it is built.

    It appears whole or not at all, and replaces an earlier one. ``free_bytes`` tells the free space below a directory. Raises UsageError
    for what cannot be packaged as it stands, ArchiverError when the disk is too small or fails.
    """
    members = collect_members(spec)
    _check_target(spec.target)
    try:
        spec.out.mkdir(parents=True, exist_ok=True)
        _check_space(spec, members, free_bytes or (lambda directory: shutil.disk_usage(directory).free))
        write_members(spec, members, progress)
    except (OSError, EOFError) as error:
        raise ArchiverError(f"cannot write {spec.target}: {error}") from error
    return spec.target


def collect_members(spec: ArchiveSpec) -> tuple[Member, ...]:
    """Check everything that the archive is made of and return its members, in order, without the hashes; raises UsageError."""
    check_model_name(spec.name)
    check_model_version(spec.version)
    _check_receipt(spec)
    model_config = load_model_config(spec.config, spec.settings)
    parsed = handler_config(model_config)
    model = parsed.model
    if model.path != MODEL_DIR:
        raise UsageError(f"handler.model.path is {model.path!r}, but an archive's checkpoint stands in {MODEL_DIR!r}; leave the key out")
    checkpoint = read_checkpoint(spec.source, trust_remote_code=model.trust_remote_code, allow_pickle=model.allow_pickle)
    handler, code = _collect_code(spec)
    warn_of_hidden_modules(code)
    info = inspect_handler(handler.path, code, model_config, spec.requirements)
    generated = [
        Member(CONFIG_FILE, render_model_config(model_config, info.frontend_keys, info.class_name, spec.frontend)),
        Member(MANIFEST_FILE, _manifest(spec, handler)),
    ]
    if spec.plan is not None:
        generated.append(Member(PLAN_FILE, spec.plan))
    weights = [*checkpoint_members(checkpoint), *draft_members(spec.draft_model, checkpoint, parsed)]
    compiled = [Member(f"{COMPILED_DIR}/{file.name}", file) for file in spec.compiled]
    members = check_members([*code, *generated, *weights, *compiled])
    _check_template(model_config, members)
    return members


def write_members(spec: ArchiveSpec, members: tuple[Member, ...], progress: Progress | None = None) -> None:
    """Write the members, then the list of their hashes, and put the archive in its place; raises OSError."""
    with _open_writer(spec, ByteCounter(sum(member.size for member in members), progress)) as writer:
        record = IntegrityRecord({member.path: writer.add(member) for member in members}, installed_versions())
        writer.add(Member(INTEGRITY_FILE, record.to_json()))


def _collect_code(spec: ArchiveSpec) -> tuple[Member, tuple[Member, ...]]:
    handler = _GENERATED_HANDLER
    if spec.handler:
        check_handler_file(spec.handler)
        handler = Member(spec.handler.name, spec.handler.resolve())
    requirements = []
    if spec.requirements:
        if not spec.requirements.is_file():
            raise UsageError(f"no such file: {spec.requirements} (--requirements)")
        requirements = [Member(REQUIREMENTS_FILE, spec.requirements.resolve())]
    return handler, check_members([handler, *requirements, *vendored_members(), *extra_members(spec.extra)])


def _check_receipt(spec: ArchiveSpec) -> None:
    """Raise UsageError for a checkpoint that did not keep to its budget; the receipt of a GGUF file lies beside it."""
    if spec.accept_rejected:
        return
    directory = spec.source if spec.source.is_dir() else spec.source.parent
    receipt = Receipt.read(directory)
    reasons = receipt.exceeded if receipt else ()
    if reasons or is_rejected(directory):
        raise UsageError(
            f"{spec.source} lost more than its budget allowed when it was quantized ({'; '.join(reasons) or 'its directory says so'}):"
            " quantize with another recipe, or package it all the same with `marquee archive --accept-rejected`"
        )


def _manifest(spec: ArchiveSpec, handler: Member) -> bytes:
    requirements_file = REQUIREMENTS_FILE if spec.requirements else None
    return create_manifest(spec.name, spec.version, handler.path, config_file=CONFIG_FILE, requirements_file=requirements_file).to_json()


def _check_template(model_config: Mapping[str, Any], members: tuple[Member, ...]) -> None:
    template = handler_config(model_config).tokenizer.chat_template
    if template is not None and template not in {member.path for member in members}:
        raise UsageError(f"handler.tokenizer.chat_template is {template!r}, which is not in the archive; add the file (--extra)")


def _check_target(target: Path) -> None:
    if target.is_dir() and not (target / MANIFEST_FILE).is_file():
        raise UsageError(f"{target} exists and is no archive; move it away, or choose another place (--out) or name (--name)")


def _check_space(spec: ArchiveSpec, members: tuple[Member, ...], free_bytes: Callable[[Path], int]) -> None:
    linked = spec.format == "dir" and spec.link
    needed = _SPARE_BYTES + sum(member.size for member in members if not (linked and is_linkable(member, spec.out)))
    free = free_bytes(spec.out)
    if free < needed:
        raise ArchiverError(
            f"{spec.out} has {free / 2**30:.1f} GiB free and the archive takes {needed / 2**30:.1f} GiB;"
            " make room, or choose another place (--out)"
        )


@contextmanager
def _open_writer(spec: ArchiveSpec, on_bytes: OnBytes) -> Iterator[ArchiveWriter]:
    # Twice as many threads as cores: half of them may be waiting for the disk.
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)), thread_name_prefix="transfer") as pool:
        if spec.format == "mar":
            with staged_file(spec.target) as file, MarWriter(file, pool, on_bytes) as writer:
                yield writer
        else:
            with staged_directory(spec.target) as directory:
                yield DirectoryWriter(directory, pool, on_bytes, link=spec.link)
