"""Whatever arrives, leaves and happens in whatever order: every request gets one answer, its own, and nothing is left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from handlers.engine.client import Event
from handlers.errors import Overloaded
from handlers.frontend import Incoming, Reply
from tests.fakes import parse_events
from tests.handlers.driver_rig import AT_ONCE, ROUTE, Rig, completion, shown

STOP = "#"


@dataclass(eq=False)
class Choice:
    """One of the answers that a client asked for, and what the engine generated for it."""

    letter: str
    stops: bool
    generated: str = ""
    engine_reason: str | None = None

    @property
    def text(self) -> str:
        """What the client should read in the end."""
        return self.generated.split(STOP)[0] if self.stops else self.generated

    @property
    def finish_reason(self) -> str | None:
        return "stop" if self.stops and STOP in self.generated else self.engine_reason


@dataclass(eq=False)
class Client:
    """One client: what it asked, and what it has received."""

    incoming: Incoming
    choices: list[Choice]
    may_be_held: bool
    """Whether the first message may be long in coming."""
    body: bytes = b""
    is_open: bool = False
    is_answered: bool = False
    has_left: bool = False

    @property
    def is_present(self) -> bool:
        return not (self.is_answered or self.has_left)

    @property
    def sequences(self) -> dict[str, Choice]:
        """Its choices by the names that the engine knows them by."""
        return {f"{self.incoming.id}#{index}" if index else self.incoming.id: choice for index, choice in enumerate(self.choices)}

    def receive(self, reply: Reply | None) -> None:
        if reply is None:
            assert self.is_open or self.may_be_held, "a new request is always answered"
            return
        assert not self.is_answered
        if self.is_open:
            assert reply.more is not None, "a plain response cannot follow a first message"
        else:
            assert reply.more is None or (reply.more and reply.body == b""), "a stream's first message is empty and not its last"
        self.is_open = True
        self.body += reply.body
        self.is_answered = reply.more is not True


class Driving(RuleBasedStateMachine):
    """Random clients and a random engine around one driver."""

    cadence = AT_ONCE

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(self.cadence)
        self.clients: dict[str, Client] = {}
        self.arrivals: list[Client] = []
        self.num_arrived = 0
        self.num_reported_cancels = 0

    # What clients do.

    def _arrive(
        self, body: bytes | None, headers: dict[str, str] | None = None, *, n: int = 1, stops: bool = False, stream: bool = True
    ) -> None:
        self.num_arrived += 1
        letters = [chr(ord("A") + (5 * self.num_arrived + index) % 26) for index in range(n)]
        incoming = Incoming(f"r{self.num_arrived}", ROUTE, body, headers=headers or {})
        client = Client(incoming, [Choice(letter, stops) for letter in letters], may_be_held=not stream and self.cadence.hold_s > 0)
        self.clients[client.incoming.id] = client
        self.arrivals.append(client)

    @rule(stream=st.booleans(), stops=st.booleans(), n=st.sampled_from([1, 1, 2, 3]))
    def a_client_comes(self, stream: bool, stops: bool, n: int) -> None:
        self._arrive(completion(stream=stream, n=n, **({"stop": STOP} if stops else {})), n=n, stops=stops, stream=stream)

    @rule(body=st.sampled_from([b"", b"{", completion(n=17), completion(prompt=5)]))
    def a_client_makes_a_mistake(self, body: bytes) -> None:
        self._arrive(body)

    @rule()
    def a_dead_workers_client_is_handed_over(self) -> None:
        self._arrive(None, {"content-length": "7"})

    @precondition(lambda self: self._present())
    @rule(data=st.data())
    def a_client_leaves(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self._present()))
        client.has_left = True
        if client in self.arrivals:  # Left before the frontend passed it on.
            self.arrivals.remove(client)
            del self.clients[client.incoming.id]

    @rule(is_full=st.booleans())
    def the_waiting_room_fills_or_empties(self, is_full: bool) -> None:
        self.rig.engine.refusal = Overloaded("full") if is_full else None

    # What the engine does.

    def _running(self) -> list[str]:
        engine = self.rig.engine
        return [name for name in engine.added if self._choice(name).engine_reason is None and name not in engine.cancelled]

    def _choice(self, name: str) -> Choice:
        return self.clients[name.split("#")[0]].sequences[name]

    @precondition(lambda self: self._running())
    @rule(data=st.data(), num_tokens=st.integers(0, 3), stop=st.booleans(), reason=st.sampled_from([None, None, "stop", "length", "error"]))
    def the_engine_reports(self, data: st.DataObject, num_tokens: int, stop: bool, reason: str | None) -> None:
        name = data.draw(st.sampled_from(self._running()))
        self._report(name, self._choice(name).letter * num_tokens + STOP * stop, reason)

    def _report(self, name: str, text: str, reason: Any) -> None:
        choice = self._choice(name)
        choice.generated += text
        choice.engine_reason = reason
        self.rig.engine.say(name, text, reason, error="out of order" if reason == "error" else None)

    @rule()
    def the_engine_confirms_what_was_cancelled(self) -> None:
        cancelled = self.rig.engine.cancelled
        for name in cancelled[self.num_reported_cancels :]:
            self.rig.engine.events.append(Event(name, finish_reason="cancelled"))
        self.num_reported_cancels = len(cancelled)

    # What the frontend does.

    def _present(self) -> list[Client]:
        return [client for client in self.clients.values() if client.is_present]

    @rule()
    def the_frontend_calls(self) -> None:
        present = self._present()
        batch = [shown(client.incoming.id) if client.is_open else client.incoming for client in present]
        self.arrivals.clear()
        for client, reply in zip(present, self.rig.driver.step(batch), strict=True):
            client.receive(reply)

    @invariant()
    def only_who_was_let_in_is_remembered(self) -> None:
        assert all(self.clients[name].is_open or self.clients[name].may_be_held for name in self.rig.driver._live)

    def teardown(self) -> None:
        self.the_frontend_calls()
        for name in self._running():
            self._report(name, self._choice(name).letter, "length")
        for _ in range(4):
            self.the_frontend_calls()
        assert not self._present(), "someone never got an answer"
        assert self.rig.driver._live == {} and self.rig.driver._choices == {}
        recorded = [request.sequence_id for request in self.rig.recorded]
        assert len(recorded) == len(set(recorded)), "each choice is recorded once"
        assert {name.split("#")[0] for name in recorded} == set(self.clients)
        for client in self.clients.values():
            self._check_answer(client)

    def _check_answer(self, client: Client) -> None:
        engine = self.rig.engine
        if client.incoming.id not in engine.added:
            return
        for name, choice in client.sequences.items():
            assert choice.engine_reason or name in engine.cancelled, "the engine works for nobody"
        has_failed = any(choice.finish_reason == "error" for choice in client.choices)
        if not client.has_left and not has_failed:
            assert read(client) == [(choice.text, choice.finish_reason) for choice in client.choices]


def read(client: Client) -> list[tuple[str, str]]:
    """Return the text and the finish reason of each choice that a client has received."""
    if not client.body.startswith(b"data: "):
        return [(choice["text"], choice["finish_reason"]) for choice in json.loads(client.body)["choices"]]
    events = [event["choices"][0] for event in parse_events(client.body) if event != "[DONE]"]
    choices = [[event for event in events if event["index"] == index] for index in range(len(client.choices))]
    return [("".join(event["text"] for event in choice), choice[-1]["finish_reason"]) for choice in choices]


class HoldingDriving(Driving):
    """The same around one that holds answers back, for as long as chance will have it."""

    cadence = replace(AT_ONCE, hold_s=3600.0)

    @precondition(lambda self: self.rig.driver._live)
    @rule(data=st.data())
    def a_hold_is_over(self, data: st.DataObject) -> None:
        live = self.rig.driver._live
        live[data.draw(st.sampled_from(sorted(live)))].held_until_s = 1e-9


TestDriving, TestHoldingDriving = Driving.TestCase, HoldingDriving.TestCase
TestDriving.settings = TestHoldingDriving.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
