"""``python -m archiver`` is ``marquee``."""

from archiver.cli import main

main()
