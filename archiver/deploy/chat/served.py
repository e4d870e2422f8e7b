"""Which models a server has, for a user who has not said which."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from archiver.errors import UsageError


def served_versions(management_url: str) -> Mapping[str, str]:
    """Return the models and the default version of each, as the management API tells; raises UsageError where it does not."""
    try:
        with httpx.Client(base_url=management_url, timeout=5, trust_env=False) as http:
            names = [model["modelName"] for model in http.get("/models").raise_for_status().json()["models"]]
            return {name: http.get(f"/models/{name}").raise_for_status().json()[0]["modelVersion"] for name in names}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError):
        hint = "is the server running? If its management API is elsewhere, add --model NAME:VERSION"
        raise UsageError(f"cannot find out which models there are, as nothing answers at {management_url}: {hint}") from None
