"""Find the configuration data that travels with the package."""

from __future__ import annotations

from pathlib import Path

# `archiver/config` is a link to the project's `config/`, so that one rule finds the data in a checkout, an editable installation and a
# wheel (setuptools follows the link and puts plain files into the wheel), and no top-level package named `config` is installed.
_CONFIG = Path(__file__).resolve().parent / "config"


def config_path(name: str) -> Path:
    """Return the path of ``config/<name>``, for example ``config_path("log4j2.xml")``.

    Raises FileNotFoundError for a name that the package does not have.
    """
    path = _CONFIG / name
    if not path.exists():
        raise FileNotFoundError(f"no configuration data named {name!r} in {_CONFIG}")
    return path
