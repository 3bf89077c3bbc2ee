# The key-rotation container. Build it from the repository's root, with --format docker where the tool is
# podman or buildah (the OCI format has no HEALTHCHECK and drops it):
#   docker build -f docker/key-rotation.Dockerfile -t netraven-keys .

FROM python:3.13-slim AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/run.txt requirements/run.txt
RUN python -m venv --without-pip /opt/netraven-keys \
    && pip --python /opt/netraven-keys/bin/python install --require-hashes --only-binary :all: --no-compile \
        -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY scripts/run_system_tasks.py scripts/healthcheck.py /opt/scripts/
# What the lock file names only to build with is taken out again; a test compares what is left with what is needed.
# The bytecode is compiled here and trusted as it is: nothing is written beside it at run time.
RUN pip --python /opt/netraven-keys/bin/python install --no-build-isolation --no-deps --no-index --no-compile . \
    && pip --python /opt/netraven-keys/bin/python uninstall --quiet --yes \
        editables hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    && /opt/netraven-keys/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        /opt/netraven-keys/lib /opt/scripts

FROM python:3.13-slim
LABEL org.opencontainers.image.title="netraven-keys" \
      org.opencontainers.image.description="Owns an application's encryption keys, rotates them, re-encrypts its data" \
      org.opencontainers.image.licenses="Apache-2.0"
ARG NETRAVEN_ENV=prod
# The data directories are 0700 and owned here, so that a new named volume on them is so too. Only /tmp stays
# open to all, and no program is left that runs as another user than its caller.
RUN groupadd --gid 10001 netuser \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /app --shell /usr/sbin/nologin netuser \
    && install -d /app /app/config /app/data /app/scripts \
    && install -d -o 10001 -g 10001 -m 0700 \
        /app/data/keys /app/data/key_backups /app/data/audit /app/data/audit_checkpoints \
    && find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o \
        -type d -perm -0002 ! -path /tmp -exec chmod o-w {} + \
    && find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o \
        -type f -perm /6000 -exec chmod a-s {} +
COPY --from=builder /opt/netraven-keys /opt/netraven-keys
COPY --from=builder /opt/scripts /app/scripts
ENV PATH=/opt/netraven-keys/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NETRAVEN_ENV=$NETRAVEN_ENV \
    NETRAVEN_KEYS__HEARTBEAT_FILE=/tmp/netraven-keys.heartbeat
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-S", "/app/scripts/healthcheck.py"]
CMD ["python", "scripts/run_system_tasks.py", "--schedule", "weekly", "--time", "01:00", "--task", "key_rotation"]
