"""The GPUs that Marquee knows: YAML files in ``config/gpus/``; the user's own profile is a file like these, given by its path."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from functools import cache
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from archiver.configuration import config_path
from archiver.errors import UsageError
from archiver.plan.hardware.profile import Efficiency, Hardware, Link, Source


def find_hardware(name: str) -> Hardware:
    """Return the profile that ``name`` means: an id, an alias, in any case and with any punctuation, or the path of a YAML file.

    Raises UsageError for one that does not exist, with the nearest names.
    """
    if name.endswith((".yaml", ".yml")):
        return read_hardware(Path(name).expanduser())
    if (hardware := known_hardware(name)) is not None:
        return hardware
    profiles = load_catalogue()
    names = [alias for each in profiles for alias in (each.id, *each.aliases)]
    nearest = difflib.get_close_matches(name.lower(), [alias.lower() for alias in names], n=2)
    hint = f"did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
    raise UsageError(f"no GPU named {name!r}; {hint}there are {', '.join(each.id for each in profiles)}, and YAML files of your own")


def known_hardware(name: str) -> Hardware | None:
    """Return the catalogue's profile of that id or alias; None if there is none."""
    wanted = _plain(name)
    return next((each for each in load_catalogue() if wanted in map(_plain, (each.id, *each.aliases))), None)


@cache
def load_catalogue() -> tuple[Hardware, ...]:
    """Return every profile that comes along, by id."""
    return tuple(read_hardware(file) for file in sorted(config_path("gpus").glob("*.yaml"), key=lambda file: file.stem))


def read_hardware(file: Path) -> Hardware:
    """Read one profile; its id is the file's name. Raises UsageError that names the file and the key."""
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such hardware profile: {file}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"hardware profile {file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"hardware profile {file} must be a mapping")
    try:
        # As JSON, because strict validation takes a list for a tuple only there: YAML's 3 and "3" stay different things.
        return TypeAdapter(Hardware).validate_json(json.dumps({"id": file.stem, **content}, default=str))
    except ValidationError as error:
        raise UsageError(f"hardware profile {file}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """Say what is wrong first: a wrong key before the right one that is missing because of it."""
    problem = min(error.errors(), key=lambda each: each["type"] != "unexpected_keyword_argument")
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] != "unexpected_keyword_argument":
        return f"{key}: {problem['msg']}, got {problem['input']!r}"
    known = [field.name for kind in (Hardware, Link, Efficiency, Source) for field in dataclasses.fields(kind)]
    nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    return f"unknown key {key}; " + (f"did you mean {nearest[0]!r}?" if nearest else "config/gpus/ has examples")


def _plain(name: str) -> str:
    """Letters and digits only, and no maker: drivers say "A100-SXM4-80GB" and "NVIDIA A100-SXM4-80GB"."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia")
