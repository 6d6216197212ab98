"""The platform's OpenAI route with the openai package, streamed."""

import os

import openai

url = os.environ.get("RUNPOD_URL", "http://127.0.0.1:8000/v2")
endpoint_id = os.environ.get("RUNPOD_ENDPOINT_ID", "local")
client = openai.OpenAI(
    base_url=f"{url}/{endpoint_id}/openai/v1",
    api_key=os.environ.get("RUNPOD_API_KEY", "none"),
    max_retries=0,  # a generation that failed is not run again unasked
)

model = client.models.list().data[0].id
stream = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Name three colours."}],
    max_tokens=60,
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
