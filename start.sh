#!/usr/bin/env bash
# Starts the worker: sets up what is missing, then becomes handler.py, which gets every argument.
# With --serve it becomes the emulator, with --gateway the gateway, with chat, run, ... doctor the
# command line, which get the other arguments.
# stdout is theirs alone; the set-up speaks on stderr.
#
# WORKER_PYTHON  a Python that has everything (a container's): nothing is set up
# PYTHON         the Python to set up with (default: the best one that is found)
set -euo pipefail

began=${EPOCHREALTIME-} # the worker's log tells where the time of a start went
here=$(readlink -f -- "${BASH_SOURCE[0]}")
# shellcheck source=scripts/environment.sh
source "${here%/*}/scripts/environment.sh"

use_environment .venv requirements.txt
case "${1-}" in
--serve) exec "$python" -m emulator "${@:2}" ;;
--gateway) exec "$python" -m gateway "${@:2}" ;;
chat | run | runsync | status | stream | cancel | health | bench | doctor)
    exec "$python" -m cli "$@"
    ;;
*) WORKER_SHELL_TIMES="$began ${EPOCHREALTIME-}" exec "$python" handler.py "$@" ;;
esac
