#!/usr/bin/env bash
# One answer: waits for the job and prints the platform's JSON.
set -euo pipefail

endpoint=${RUNPOD_URL:-http://127.0.0.1:8000/v2}/${RUNPOD_ENDPOINT_ID:-local}

ask() { # PATH [DATA]: the answer's JSON
    curl --silent --show-error --fail-with-body "$endpoint/$1" \
        --header "Authorization: Bearer ${RUNPOD_API_KEY:-none}" \
        ${2:+--header "Content-Type: application/json" --data "$2"}
}

ask runsync '{"input": {
    "api": {"method": "POST", "endpoint": "/generate"},
    "payload": {"prompt": "The capital of France is", "max_new_tokens": 20}}}'
echo
