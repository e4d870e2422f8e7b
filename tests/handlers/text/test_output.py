"""What a client is sent and what it is told it used, for every way a sequence can end."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from handlers.requests import TokenLogprob
from handlers.text.output import TextOutput


def decode(token_ids: Sequence[int]) -> str:
    return "".join(map(chr, token_ids))


def tokens(text: str) -> list[int]:
    return list(map(ord, text))


def test_text_passes_through_and_every_token_counts() -> None:
    output = TextOutput(decode)

    assert output.push(tokens("ab")) + output.push(tokens("c")) + output.finish() == "abc"
    assert (output.num_tokens, output.is_stopped) == (3, False)


def test_the_token_that_ended_the_sequence_counts_and_is_no_text() -> None:
    output = TextOutput(decode)

    assert output.push(tokens("ab."), num_stop_tokens=1) + output.finish() == "ab"
    assert output.num_tokens == 3


def test_tokens_after_a_stop_string_neither_count_nor_show() -> None:
    output = TextOutput(decode, ["xy"])

    assert output.push(tokens("axyz")) == "a"
    assert output.is_stopped
    assert output.push(tokens("more")) == output.finish() == ""
    assert output.num_tokens == 3


def test_what_was_held_back_comes_at_the_end() -> None:
    output = TextOutput(decode, ["xyz"])

    assert output.push(tokens("axy")) == "a"
    assert output.finish() == "xy"


def test_skipped_tokens_count_and_are_no_text() -> None:
    output = TextOutput(decode, skip=frozenset(tokens("!")))

    assert output.push(tokens("a!b!")) + output.finish() == "ab"
    assert output.num_tokens == 4


def logprobs(text: str) -> list[TokenLogprob]:
    return [TokenLogprob(token, -0.5, ((token, -0.5), (ord("?"), -1.0))) for token in tokens(text)]


def taken(output: TextOutput) -> str:
    return "".join(token.token.text for token in output.take_tokens())


def test_a_token_comes_with_its_logprob_its_rivals_and_its_place() -> None:
    output = TextOutput(decode)
    output.push(tokens("ab"), logprobs=logprobs("ab"))

    first, second = output.take_tokens()

    assert (first.token.text, first.logprob, first.offset, second.offset) == ("a", -0.5, 0, 1)
    assert [(token.text, logprob) for token, logprob in second.top] == [("b", -0.5), ("?", -1.0)]
    assert output.take_tokens() == []


def test_tokens_are_held_back_with_their_text_and_cut_off_with_it() -> None:
    output = TextOutput(decode, ["xyz"])
    output.push(tokens("axy"), logprobs=logprobs("axy"))
    assert taken(output) == "a"
    output.push(tokens("b"), logprobs=logprobs("b"))
    assert taken(output) == "xyb"
    output.push(tokens("cxyz"), logprobs=logprobs("cxyz"))
    output.finish()
    assert taken(output) == "c"


def test_what_was_held_back_at_the_end_comes_with_its_tokens() -> None:
    output = TextOutput(decode, ["xyz"], skip=frozenset(tokens("!")))
    output.push(tokens("axy!."), num_stop_tokens=1, logprobs=logprobs("axy!."))
    output.finish()

    assert taken(output) == "axy!"


@given(text=st.text("abx", max_size=12), data=st.data())
def test_events_may_bring_any_number_of_tokens(text: str, data: st.DataObject) -> None:
    one_by_one, in_groups = TextOutput(decode, ["xx"]), TextOutput(decode, ["xx"])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))

    single = "".join(one_by_one.push([token], logprobs=logprobs(chr(token))) for token in tokens(text)) + one_by_one.finish()
    groups = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    grouped = "".join(in_groups.push(tokens(group), logprobs=logprobs(group)) for group in groups) + in_groups.finish()

    assert taken(one_by_one) == taken(in_groups) == single
    assert (single, one_by_one.num_tokens) == (grouped, in_groups.num_tokens)
    assert one_by_one.num_tokens == (text.find("xx") + 2 if "xx" in text else len(text))
