"""A user's own handler: its hooks change requests and answers, and when one breaks, one request fails."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.contract.authors_handler import SECRET
from tests.contract.clients import ClientOf, ModelClient

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def authors(client_of: ClientOf) -> ModelClient:
    return client_of("authors")


@pytest.mark.parametrize("stream", [False, True])
def test_hooks_see_every_prompt_and_every_piece_of_text(authors: ModelClient, wide: ModelClient, stream: bool) -> None:
    assert authors.complete("Quick FOX", max_tokens=30, stream=stream).text == wide.complete("quick fox", max_tokens=30).text.upper()
    assert authors.chat("Quick FOX", max_tokens=30, stream=stream).text == wide.chat("quick fox", max_tokens=30).text.upper()


def test_an_authors_field_is_part_of_the_answer(authors: ModelClient) -> None:
    completion = authors.openai.completions.create(model="authors", prompt="quick fox", max_tokens=30)
    *_, last = authors.openai.completions.create(model="authors", prompt="quick fox", max_tokens=30, stream=True)

    assert completion.model_extra == {"num_characters": len(completion.choices[0].text)}
    assert set(last.model_extra or ()) == {"num_characters"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_the_authors_has_its_status(authors: ModelClient, stream: bool) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="this topic is forbidden"):
        authors.complete("something forbidden", stream=stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("hook", ["preprocess", "emit", "postprocess"])
def test_a_broken_hook_fails_its_request_alone(authors: ModelClient, hook: str, stream: bool) -> None:
    alone = authors.complete("neighbour", max_tokens=200, ignore_eos=True)

    with ThreadPoolExecutor() as pool:
        neighbours = [pool.submit(authors.complete, "neighbour", max_tokens=200, ignore_eos=True, stream=mode) for mode in (False, True)]
        response = authors.post({"prompt": f"break {hook}", "max_tokens": 300, "ignore_eos": True, "stream": stream})
        assert [neighbour.result() for neighbour in neighbours] == [alone, alone]

    # The status of a stream goes out at admission and cannot change any more.
    assert response.status_code == (200 if stream and hook != "preprocess" else 500)
    assert last_json(response)["error"]["type"] == "server_error"
    assert SECRET not in response.text and "Traceback" not in response.text


@pytest.mark.parametrize("hook", ["preprocess", "emit", "postprocess"])
def test_the_client_library_raises_what_broke_a_stream(authors: ModelClient, hook: str) -> None:
    with pytest.raises(openai.APIError, match="internal error"):
        authors.complete(f"break {hook}", max_tokens=300, ignore_eos=True, stream=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_record_takes_no_answer_away(authors: ModelClient, wide: ModelClient, stream: bool) -> None:
    assert authors.complete("break record", max_tokens=20, stream=stream).text == wide.complete("break record", max_tokens=20).text.upper()


def last_json(response: httpx.Response) -> dict[str, dict[str, str]]:
    """Return the body, or the last event of a stream."""
    last = httpx.Response(200, text=response.text.rstrip().splitlines()[-1].removeprefix("data: "))
    return dict(last.json())
