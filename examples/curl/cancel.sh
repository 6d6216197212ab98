#!/usr/bin/env bash
# Queues a job, cancels it and prints how it stands.
set -euo pipefail

endpoint=${RUNPOD_URL:-http://127.0.0.1:8000/v2}/${RUNPOD_ENDPOINT_ID:-local}

ask() { # PATH [DATA]: the answer's JSON
    curl --silent --show-error --fail-with-body "$endpoint/$1" \
        --header "Authorization: Bearer ${RUNPOD_API_KEY:-none}" \
        ${2:+--header "Content-Type: application/json" --data "$2"}
}

answer=$(ask run '{"input": {
    "api": {"method": "POST", "endpoint": "/generate"},
    "payload": {"prompt": "Once upon a time", "max_new_tokens": 2000}}}')
[[ $answer =~ \"id\":\ *\"([^\"]+)\" ]]
job=${BASH_REMATCH[1]}

ask "cancel/$job" '{}' >/dev/null
ask "status/$job"
echo
