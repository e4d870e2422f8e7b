"""Ask the redacting handler something private, and show what it says about it."""

import sys

from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/predictions/redacting/1.0/v1"
client = OpenAI(base_url=base_url, api_key="unused")
answer = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[{"role": "user", "content": "Write to anna@example.org or call +44 20 7946 0958. What is 12 + 7?"}],
)
print(answer.choices[0].message.content)
print("redactions:", answer.redactions)
