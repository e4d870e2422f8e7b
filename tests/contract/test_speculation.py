"""A model that guesses behind real TorchServe: the answers are those of one that does not, in fewer steps."""

from __future__ import annotations

import pytest

from archiver.deploy.launch import TorchServe
from tests.contract.clients import ClientOf, at_once, orders_to

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

PROMPTS = [f"Tell me about number {number}" for number in range(12)]


def test_guesses_change_no_answer_and_save_steps(server: TorchServe, client_of: ClientOf) -> None:
    stats = orders_to(server, "guessing")
    before = stats("stats")
    guessing, wide = client_of("guessing"), client_of("wide")
    answers = at_once(lambda prompt: guessing.complete(prompt, stream=True, max_tokens=48, ignore_eos=True), PROMPTS)
    assert answers == [wide.complete(prompt, max_tokens=48, ignore_eos=True) for prompt in PROMPTS]
    after = stats("stats")
    drafted, accepted = (after[name] - before[name] for name in ("drafted_tokens", "accepted_tokens"))
    assert 0 < 0.9 * drafted < accepted


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seeded_answer_is_the_same_with_guesses(client_of: ClientOf, seed: int) -> None:
    sampled = {"temperature": 1.0, "top_p": 0.9, "seed": seed, "max_tokens": 40}
    guessing, wide = (client_of(name).complete(PROMPTS[0], **sampled) for name in ("guessing", "wide"))
    assert guessing == wide
