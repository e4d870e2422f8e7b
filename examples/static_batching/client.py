"""Send 16 requests at once and show how long they took together, and how long one takes alone."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/predictions/static/1.0/v1"
client = OpenAI(base_url=base_url, api_key="unused")
model = client.models.list().data[0].id


def ask(number: int) -> str:
    """Ask one sum."""
    messages = [{"role": "user", "content": f"What is {number} + 7?"}]
    return client.chat.completions.create(model=model, messages=messages, temperature=0).choices[0].message.content


started_s = time.monotonic()
ask(1)
alone_s = time.monotonic() - started_s

started_s = time.monotonic()
with ThreadPoolExecutor(16) as pool:
    answers = list(pool.map(ask, range(1, 17)))
together_s = time.monotonic() - started_s

print(f"one request: {alone_s:.2f} s; 16 at once: {together_s:.2f} s ({16 * alone_s / together_s:.1f} times as fast as one by one)")
print(answers[4])
