# Solon's trainings on NVIDIA GPUs. CUDA's libraries come with torch's wheels, the driver with the machine.
#
#   docker build -f infra/images/trainer.Dockerfile --build-arg REVISION=$(git rev-parse HEAD) -t solon-trainer:0.1.0 .
#
# No docker was at hand: its instructions ran in a chroot with ACCELERATOR=cpu; the CUDA wheels were never installed, no GPU was seen.
# Every RUN is a script of infra/images/steps; infra/images/README.md has the rest.
FROM docker.io/library/debian:12.12-slim@sha256:d5d3f9c23164ea16f31852f95bd5959aad1c5e854332fe00f7b3a20fcc9f635c AS base
COPY infra/images/steps/system.sh /steps/system.sh
RUN sh /steps/system.sh base
RUN sh /steps/system.sh trainer

FROM base AS environment
COPY infra/images/steps /steps
RUN sh /steps/system.sh build
COPY infra/requirements/image.txt infra/requirements/image-tools.txt /build/requirements/
ARG ACCELERATOR=cuda
RUN sh /steps/python_environment.sh /build/requirements ${ACCELERATOR} /opt/solon/.venv
COPY pyproject.toml /build/pyproject.toml
RUN sh /steps/sbom.sh /opt/solon/.venv /build/pyproject.toml /build/sbom.cdx.json

# docker build --target sbom --output . writes the list alone
FROM scratch AS sbom
COPY --from=environment /build/sbom.cdx.json /sbom.cdx.json

FROM base AS image
WORKDIR /opt/solon
COPY --from=environment /opt/solon/.venv /opt/solon/.venv
COPY --from=environment /build/sbom.cdx.json /opt/solon/sbom.cdx.json
COPY infra/images/steps/user.sh infra/images/steps/application.sh /steps/
RUN sh /steps/user.sh /scratch
COPY solon pyproject.toml LICENSE /opt/solon/
COPY flows /opt/solon/flows
COPY tasks /opt/solon/tasks
COPY constitutions /opt/solon/constitutions
COPY deployments /opt/solon/deployments
COPY infra /opt/solon/infra
RUN sh /steps/application.sh /opt/solon
# nothing but /tmp and /scratch is written, so the root file system may be read-only
ENV PATH=/opt/solon/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/scratch \
    TMPDIR=/tmp \
    XDG_CACHE_HOME=/scratch/cache \
    HF_HOME=/scratch/cache/huggingface \
    PREFECT_HOME=/scratch/prefect \
    PREFECT_WORKER_WEBSERVER_HOST=127.0.0.1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TORCHINDUCTOR_CACHE_DIR=/scratch/cache/inductor \
    TRITON_CACHE_DIR=/scratch/cache/triton \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HUB_DISABLE_TELEMETRY=1
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="solon-trainer" \
    org.opencontainers.image.description="Solon: trainings on NVIDIA GPUs" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="docker.io/library/debian:12.12-slim"
USER 10001:10001
VOLUME ["/scratch"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "infra.images.runtime.health"]
ENTRYPOINT ["/usr/bin/tini", "--", "python", "-m", "infra.images.runtime.entrypoint"]
CMD ["python", "-m", "prefect", "worker", "start", "--type", "process", "--install-policy", "never", "--with-healthcheck", "--pool", "gpu-training"]
