"""Everything before and around the server: archives, deployment, the ``marquee`` command."""

from handlers import __version__

__all__ = ["__version__"]
