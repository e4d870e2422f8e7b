"""Everything before and around the server: archives, deployment, the ``marquee`` command."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("marquee")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
