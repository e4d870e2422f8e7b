"""Recipes: YAML files that say how to quantize. Marquee's are in ``config/recipes/``, the user's own anywhere, or in his recipe directory.

A recipe that ``extends`` another has its content, but for what it says itself; of the options, one by one. ``variant`` is the option that
what follows a colon in a recipe's name sets.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from archiver.configuration import config_path
from archiver.errors import UsageError
from archiver.quantize.producers.catalogue import PRODUCERS, ProducerKind

_KEYS = ("summary", "format", "producer", "options", "variant")


@dataclass(frozen=True)
class Recipe:
    """How to quantize. ``format`` is what results; ``options`` are complete and valid."""

    name: str
    summary: str
    format: str
    producer: ProducerKind
    options: Mapping[str, Any]
    needs_calibration: bool

    @property
    def label(self) -> str:
        """Return the name as a part of a file's name."""
        return self.name.replace(":", "-")


def read_recipe(name: str) -> Recipe:
    """Read the recipe that ``name`` means: a name, or the path of a YAML file; ``:`` and a variant may follow.

    Raises UsageError, in one line, for one that does not exist or says something that cannot be.
    """
    base, _, variant = name.partition(":")
    file = _find(base)
    content = _read(file)
    if variant:
        if not content.get("variant"):
            raise UsageError(f"recipe {base} has no variants, got {name!r}")
        content["options"] = {**content["options"], content["variant"]: variant}
    return _check(f"{file.stem}:{variant}" if variant else file.stem, content, file)


def list_recipes() -> tuple[Recipe, ...]:
    """Return Marquee's recipes and those in the user's recipe directory, by name."""
    return tuple(read_recipe(name) for name in sorted(_known()))


def user_recipes() -> Path:
    """Return where the user keeps recipes: ``~/.config/marquee/recipes`` (``XDG_CONFIG_HOME``)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "marquee" / "recipes"


def _known() -> dict[str, Path]:
    """The files of all recipes that go by name; a recipe of Marquee's cannot be replaced, so that its name always means the same."""
    return {file.stem: file for directory in (user_recipes(), config_path("recipes")) for file in sorted(directory.glob("*.yaml"))}


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    known = _known()
    if name not in known:
        raise UsageError(f"no recipe named {name!r}; {_hint(name, sorted(known))}")
    return known[name]


def _read(file: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a recipe's content with what it extends merged in."""
    if file in extending:
        raise UsageError(f"recipe {file} extends itself")
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such recipe: {file}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.setdefault("options", {}), dict):
        raise UsageError(f"recipe {file} must be a mapping, and so must its options")
    parent = content.pop("extends", None)
    if parent is None:
        return content
    if str(parent).endswith((".yaml", ".yml")):
        parent = file.parent / parent
    inherited = _read(_find(str(parent)), (*extending, file))
    return {**inherited, **content, "options": {**inherited["options"], **content["options"]}}


def _check(name: str, content: Mapping[str, Any], file: Path) -> Recipe:
    for key in content:
        if key not in _KEYS:
            raise UsageError(f"recipe {file}: unknown key {key!r}; {_hint(str(key), (*_KEYS, 'extends'))}")
    absent = [key for key in ("summary", "format", "producer") if not isinstance(content.get(key), str)]
    if absent:
        raise UsageError(f"recipe {file} needs {absent[0]}, a text, or `extends:` and a recipe that has it")
    producer = PRODUCERS.get(content["producer"])
    if producer is None:
        raise UsageError(f"recipe {file}: no producer {content['producer']!r}; {_hint(content['producer'], PRODUCERS)}")
    kind = _options_type(producer, content["options"], file)
    options = _check_options(kind, content["options"], file)
    return Recipe(name, content["summary"], content["format"], producer, options, kind.needs_calibration)


def _options_type(producer: ProducerKind, options: Mapping[str, Any], file: Path) -> type[Any]:
    method = str(options.get("method", ""))
    if method not in producer.options:
        raise UsageError(f"recipe {file}: options.method is {method!r}; {_hint(method, producer.options)}")
    return producer.options[method]


def _check_options(kind: type[Any], options: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """Return complete options as plain values."""
    adapter = TypeAdapter(kind)
    try:
        # As JSON, because strict validation takes a list for a tuple only there: YAML's 3 and "3" stay different things.
        complete = adapter.validate_json(json.dumps(options, default=str))
    except ValidationError as error:
        problem = error.errors()[0]
    else:
        return dict(adapter.dump_python(complete, mode="json"))
    key = ".".join(["options", *map(str, problem["loc"])])
    if problem["type"] != "unexpected_keyword_argument":
        raise UsageError(f"recipe {file}: {key}: {problem['msg']}, got {problem['input']!r}")
    known = [field.name for field in dataclasses.fields(kind)]
    raise UsageError(f"recipe {file}: unknown key {key}; {_hint(str(problem['loc'][-1]), known)}")


def _hint(wrong: str, valid: Iterable[str]) -> str:
    valid = list(valid)
    nearest = difflib.get_close_matches(wrong, valid, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"there are: {', '.join(valid)}"
