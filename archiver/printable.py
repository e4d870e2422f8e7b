"""Text from elsewhere, made safe for a terminal."""

from __future__ import annotations

# C0 and C1 controls and DEL: they begin the sequences that move the cursor, change the title or answer as if the user had typed (ECMA-48).
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
# Half a surrogate pair cannot be encoded at all.
_HALF_PAIRS = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_REPLACED = {**_CONTROLS, **_HALF_PAIRS}


def printable(text: str) -> str:
    """Return ``text`` without control characters other than newline and tab.

    Decided character by character, so that a sequence cut in two by a stream is as harmless as a whole one; what is left of it is text.
    """
    return text.translate(_REPLACED)
