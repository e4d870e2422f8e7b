"""Which route a request is for: the one in its URL, or at the bare prediction URL the one that its body is made for.

``/predictions/<model>`` leads to the default version; with a route TorchServe wants the version in the URL, too. Whoever is to follow
when the default version changes sends OpenAI's bodies to the bare URL.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from handlers.frontend import Incoming

_BY_KEY = {"messages": "v1/chat/completions", "prompt": "v1/completions"}


def route_of(incoming: Incoming, routes: Collection[str]) -> str:
    """Return a request's route, which need not be among ``routes``; a body that cannot be read is left to the route in the URL."""
    body = incoming.body or b""
    if incoming.route or incoming.content_type.startswith("text/") or not any(f'"{key}"'.encode() in body for key in _BY_KEY):
        return incoming.route
    try:
        keys = json.loads(body)
    except (ValueError, RecursionError):
        return incoming.route
    found = (route for key, route in _BY_KEY.items() if isinstance(keys, dict) and key in keys and "inputs" not in keys)
    return next((route for route in found if route in routes), incoming.route)
