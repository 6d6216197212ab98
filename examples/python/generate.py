"""One answer: waits for the job and prints its text."""

import os

import runpod

runpod.endpoint_url_base = os.environ.get("RUNPOD_URL", "http://127.0.0.1:8000/v2")
endpoint = runpod.Endpoint(
    os.environ.get("RUNPOD_ENDPOINT_ID", "local"),
    api_key=os.environ.get("RUNPOD_API_KEY", "none"),
)

output = endpoint.run_sync(
    {
        "input": {
            "api": {"method": "POST", "endpoint": "/generate"},
            "payload": {"prompt": "The capital of France is", "max_new_tokens": 20},
        }
    },
    timeout=300,
)
print(output["results"][0]["text"])
