"""Two turns of a chat: the history of an answer goes along with the next question."""

import os

import runpod

runpod.endpoint_url_base = os.environ.get("RUNPOD_URL", "http://127.0.0.1:8000/v2")
endpoint = runpod.Endpoint(
    os.environ.get("RUNPOD_ENDPOINT_ID", "local"),
    api_key=os.environ.get("RUNPOD_API_KEY", "none"),
)

history: dict[str, list[list[str]]] = {"internal": [], "visible": []}
for question in ("What is the capital of France?", "And how many people live there?"):
    payload = {
        "user_input": question,
        "history": history,
        "mode": "instruct",
        "max_new_tokens": 60,
    }
    job_input = {"api": {"method": "POST", "endpoint": "/chat"}, "payload": payload}
    output = endpoint.run_sync({"input": job_input}, timeout=300)
    history = output["results"][0]["history"]
    print(f"> {question}\n{history['internal'][-1][1]}")
