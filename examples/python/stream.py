"""A stream: prints the text as it is generated, and cancels the job on Ctrl-C."""

import os

import runpod

runpod.endpoint_url_base = os.environ.get("RUNPOD_URL", "http://127.0.0.1:8000/v2")
endpoint = runpod.Endpoint(
    os.environ.get("RUNPOD_ENDPOINT_ID", "local"),
    api_key=os.environ.get("RUNPOD_API_KEY", "none"),
)

job = endpoint.run(
    {
        "input": {
            "api": {"method": "POST", "endpoint": "/generate"},
            "payload": {"prompt": "Once upon a time", "max_new_tokens": 100, "stream": True},
        }
    }
)
try:
    for frame in job.stream():
        print(frame.get("text", ""), end="", flush=True)
    print()
except KeyboardInterrupt:
    job.cancel()
