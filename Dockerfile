# rowvec in a container.
#
#   docker build -t rowvec .
#   docker build -t rowvec:embedded --build-arg EXTRAS=embedded .    (offline model and embedded Postgres; x86-64)
#
# With podman add `--format docker`: the OCI format drops HEALTHCHECK.

# A build argument, so that a mirror or a digest can be put in.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
ARG EXTRAS=""
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY daemon daemon
COPY sql sql
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
# No pip in the environment: the builder's own installs into it. Wheels only, for there is no compiler here.
RUN python -m venv --without-pip /opt/rowvec \
    && pip --python /opt/rowvec/bin/python install --no-cache-dir --only-binary=:all: \
        "$(ls /wheels/rowvec-*.whl)${EXTRAS:+[${EXTRAS}]}"

FROM ${PYTHON_IMAGE}
# A fixed uid keeps the owner of a volume the same; its entry in passwd is for the embedded Postgres.
RUN groupadd --gid 10001 rowvec \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/rowvec --create-home --shell /usr/sbin/nologin rowvec
COPY --from=builder /opt/rowvec /opt/rowvec
# 0.0.0.0: loopback inside a container can't be reached from outside. What is open to whom is then decided by the
# published ports: probes and metrics ask for no token.
ENV PATH=/opt/rowvec/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ROWVEC_HTTP_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/rowvec
EXPOSE 8480
STOPSIGNAL SIGTERM
# Liveness, not readiness: some orchestrators replace an unhealthy container, and a database that is down is no
# reason to. Who wants to wait for the database asks `rowvec healthcheck` without `--live`.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 \
    CMD ["rowvec", "healthcheck", "--live"]
ENTRYPOINT ["rowvec"]
CMD ["run"]
