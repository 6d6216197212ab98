"""The text that a start prints: where the emulator is, and commands to copy."""

from __future__ import annotations

import json

# Where the command line looks when nobody says otherwise.
_DEFAULT = "http://127.0.0.1:8000/v2/local"


def greeting(url: str, endpoint_id: str, *, with_key: bool) -> str:
    """Make the text; a key is named as $RUNPOD_API_KEY and never printed."""
    base = f"{url}/v2/{endpoint_id}"
    header = ' -H "Authorization: Bearer $RUNPOD_API_KEY"' if with_key else ""
    imports = "import os, " if with_key else "import "
    key = "os.environ['RUNPOD_API_KEY']" if with_key else "'none'"
    job = {"api": {"method": "POST", "endpoint": "/generate"}, "payload": {"prompt": "Hello"}}
    body = json.dumps({"input": job})
    is_default = base == _DEFAULT and not with_key
    options = "" if is_default else f" --url {url}/v2 --endpoint {endpoint_id}"
    return f"""The emulator listens on {base}

Page: {url}/
Chat: ./start.sh chat{options}

curl:
  curl {base}/runsync{header} -H 'Content-Type: application/json' \\
    -d '{body}'

Python SDK:
  python -c "{imports}runpod; runpod.endpoint_url_base = '{url}/v2'; \\
    e = runpod.Endpoint('{endpoint_id}', api_key={key}); \\
    print(e.run_sync({job}))"

OpenAI client:
  python -c "{imports}openai; \\
    c = openai.OpenAI(base_url='{base}/openai/v1', api_key={key}); \\
    print(c.completions.create(model=c.models.list().data[0].id, prompt='Hello').choices[0].text)"
"""
