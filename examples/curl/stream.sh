#!/usr/bin/env bash
# A stream: prints what has come since the last question, a line of JSON each, until the job ends.
set -euo pipefail

endpoint=${RUNPOD_URL:-http://127.0.0.1:8000/v2}/${RUNPOD_ENDPOINT_ID:-local}

ask() { # PATH [DATA]: the answer's JSON
    curl --silent --show-error --fail-with-body "$endpoint/$1" \
        --header "Authorization: Bearer ${RUNPOD_API_KEY:-none}" \
        ${2:+--header "Content-Type: application/json" --data "$2"}
}

answer=$(ask run '{"input": {
    "api": {"method": "POST", "endpoint": "/generate"},
    "payload": {"prompt": "Once upon a time", "max_new_tokens": 100, "stream": true}}}')
[[ $answer =~ \"id\":\ *\"([^\"]+)\" ]]
job=${BASH_REMATCH[1]}

while :; do
    answer=$(ask "stream/$job")
    printf '%s\n' "$answer"
    # The last chunks may come together with the final status: ask until nothing comes any more.
    [[ $answer =~ \"stream\":\ *\[\] && ! $answer =~ IN_(QUEUE|PROGRESS) ]] && break
    sleep 0.2
done
