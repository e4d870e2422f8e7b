"""The bare prediction URL: Hugging Face's own client for text-generation-inference, and plain text."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from openai import OpenAI

from tests.contract.clients import PATIENCE_S, ModelClient

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

PROMPT = "quick fox"


@pytest.fixture
def inference(client: ModelClient) -> InferenceClient:
    return InferenceClient(model=client.prediction_url, token="unused", timeout=PATIENCE_S)


def test_the_hugging_face_client_gets_the_text(client: ModelClient, inference: InferenceClient) -> None:
    assert inference.text_generation(PROMPT, max_new_tokens=20) == client.complete(PROMPT, max_tokens=20).text


def test_the_hugging_face_client_streams(client: ModelClient, inference: InferenceClient) -> None:
    pieces = list(inference.text_generation(PROMPT, max_new_tokens=20, stream=True))

    assert "".join(pieces) == client.complete(PROMPT, max_tokens=20).text


def test_the_hugging_face_client_gets_details(client: ModelClient, inference: InferenceClient) -> None:
    output = inference.text_generation(PROMPT, max_new_tokens=20, details=True)

    assert output.generated_text == client.complete(PROMPT, max_tokens=20).text
    assert output.details is not None
    assert (output.details.finish_reason, output.details.generated_tokens) == ("length", 20)


def test_plain_text_is_answered_with_plain_text(client: ModelClient) -> None:
    response = httpx.post(client.prediction_url, content=PROMPT, headers={"Content-Type": "text/plain"}, timeout=PATIENCE_S)

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text


def test_the_url_without_a_version_is_the_same_model(client: ModelClient) -> None:
    url = client.prediction_url.removesuffix("/1.0")
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 8}}

    response = httpx.post(url, json=body, timeout=PATIENCE_S)

    assert response.json()[0]["generated_text"] == client.complete(PROMPT, max_tokens=8).text


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_client_follows_the_default_version(client: ModelClient, stream: bool) -> None:
    unversioned = client.prediction_url.removesuffix("/1.0")
    openai = OpenAI(base_url=f"{unversioned}?", api_key="unused", max_retries=0, timeout=PATIENCE_S)
    messages: Any = [{"role": "user", "content": PROMPT}]

    answer = openai.chat.completions.create(model=client.model, messages=messages, max_tokens=8, temperature=0, stream=stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else answer.choices[0].message.content
    assert text == client.chat(PROMPT, max_tokens=8).text
