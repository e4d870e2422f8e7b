"""Keep e-mail addresses and phone numbers from the model, and tell the client how many there were."""

import re
from functools import partial

from handlers import CausalLMHandler

PRIVATE = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w|\+?\(?\d[\d ().-]{6,}\d")


class RedactingHandler(CausalLMHandler):
    """Redact every message, or the prompt, before the chat template sees it."""

    def preprocess(self, requests):
        """Count in ``found``, and show the count as the answer's field ``redactions``."""
        for request in super().preprocess(requests):
            found = request.extra["redacted"] = []
            request.map_text(partial(PRIVATE.sub, lambda match, found=found: found.append(match[0]) or "[redacted]"))
            request.fields["redactions"] = len(found)
        return requests
