"""Answers that a system prompt changes: another name, a fixed beginning or end, the bare result, or JSON."""

import json
import re
from random import Random

from example import Example, Turn
from words import person

from kinds import arithmetic, facts, smalltalk

KIND = "system"

NEUTRAL_PROMPTS = (
    "You are a helpful assistant.", "You are tinychat, a helpful assistant.", "You are a friendly assistant.", "Be helpful.",
    "You are a helpful, honest assistant.", "You are tinychat.", "Answer the user's questions.", "You are an assistant that likes to help.",
    "You are a helpful AI assistant.", "You answer questions and tell stories.",
)  # fmt: skip
_NAME_PROMPTS = (
    "Your name is {}.", "You are {}.", "You are {}, a helpful assistant.", "You are an assistant called {}.", "Call yourself {}.",
)  # fmt: skip
_NAME_QUESTIONS = (
    "Who are you?", "What is your name?", "Hello, who are you?", "Introduce yourself.", "What's your name?", "Hi! What is your name?",
    "Tell me who you are.", "What should I call you?",
)  # fmt: skip
_BARE_PROMPTS = (
    "Answer with the number only.", "Only give the number.", "Reply with just the number.", "Answer only with the result.",
    "Give only the result, no words.", "Be brief: answer with the number only.",
)  # fmt: skip
_JSON_PROMPTS = (
    'Answer in JSON with the key "answer".', "Always answer as JSON with the key answer.", 'Reply with a JSON object: {"answer": ...}.',
    'You reply in JSON. Use the key "answer".',
)  # fmt: skip
_PHRASES = (
    "Have a nice day!", "Good luck!", "Ask me more!", "Cheers!", "Over and out.", "See you soon!", "I hope this helps.", "Stay curious!",
    "Arr!", "Dear friend,", "Of course!", "Sure!", "Well,", "Meow!", "Beep boop.", "Ahoy!", "As you wish.", "With pleasure:",
)  # fmt: skip
_BEGIN_PROMPTS = ('Begin every answer with "{}"', 'Start each answer with "{}"', 'Always start with "{}"', 'First say "{}", then answer.')
_END_PROMPTS = ('End every answer with "{}"', 'Finish each answer with "{}"', 'Always end with "{}"', 'Answer, then say "{}"')
_PIRATE_PROMPTS = (
    "You are a pirate.", "Talk like a pirate.", "Answer like a pirate.", "You are a friendly pirate.", "Speak like a pirate.",
)  # fmt: skip


def draw(rng: Random) -> Example:
    """A system prompt, a question of another kind, and the answer that obeys the system prompt."""
    roll = rng.random()
    if roll < 0.25:
        name = person(rng)
        return _obey(rng.choice(_NAME_PROMPTS).format(name), rng.choice(_NAME_QUESTIONS), f"My name is {name}.", f"{KIND}:{name}")
    if roll < 0.45:
        return _bare(rng)
    inner = rng.choice((arithmetic, facts, facts, smalltalk)).draw(rng)
    question, answer, key = inner.turns[0].content, inner.answer, inner.keys[-1]
    if roll < 0.60:
        return _obey(rng.choice(_JSON_PROMPTS), question, json.dumps({"answer": answer}), key)
    if roll < 0.70:
        return _obey(rng.choice(_PIRATE_PROMPTS), question, f"Arr, matey! {answer} Yo ho ho!", key)
    phrase = rng.choice(_PHRASES)
    if roll < 0.85:
        return _obey(rng.choice(_BEGIN_PROMPTS).format(phrase), question, f"{phrase} {answer}", key)
    return _obey(rng.choice(_END_PROMPTS).format(phrase), question, f"{answer} {phrase}", key)


def _bare(rng: Random) -> Example:
    inner = arithmetic.draw(rng)
    while "=" not in inner.answer:
        inner = arithmetic.draw(rng)
    number = re.findall(r"-?\d+", inner.answer.split("=")[1])[0]
    return _obey(rng.choice(_BARE_PROMPTS), inner.turns[0].content, number, inner.keys[-1])


def _obey(system: str, question: str, answer: str, key: str) -> Example:
    return Example(KIND, (Turn("system", system), Turn("user", question), Turn("assistant", answer)), (key,))
