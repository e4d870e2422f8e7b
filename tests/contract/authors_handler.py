"""A user's handler: it changes prompts and answers, and breaks where a prompt tells it to."""

from handlers import CausalLMHandler, Delta

SECRET = "the text of an exception"


def break_if_asked(request, hook):
    """Raise what no client may see."""
    if f"break {hook}" in request.extra.get("asked", ""):
        raise RuntimeError(f"{SECRET} in {hook}")


class AuthorsHandler(CausalLMHandler):
    """Lower-case prompts, upper-case answers, and count characters in a field of the answer."""

    def preprocess(self, requests):
        """Keep the prompt for the other hooks, and refuse "forbidden" ones."""
        for request in super().preprocess(requests):
            request.extra["asked"] = request.prompt or request.messages[-1]["content"]
            break_if_asked(request, "preprocess")
            if "forbidden" in request.extra["asked"]:
                request.fail(403, "this topic is forbidden")
            request.map_text(str.lower)
        return requests

    def emit(self, request, delta):
        """Break only once some text has been sent."""
        if request.text:
            break_if_asked(request, "emit")
        super().emit(request, Delta(delta.text.upper()))

    def postprocess(self, requests):
        """Count."""
        for request in super().postprocess(requests):
            break_if_asked(request, "postprocess")
            request.fields["num_characters"] = len(request.text)
        return requests

    def record(self, request):
        """Break after the fact."""
        super().record(request)
        break_if_asked(request, "record")
