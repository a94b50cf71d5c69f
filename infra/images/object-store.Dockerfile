# An S3 server of one node for infra/compose.yaml: Debian's Ceph, against which Solon's store is tested (docs/store.md).
#
#   docker build -f infra/images/object-store.Dockerfile --build-arg REVISION=$(git rev-parse HEAD) -t solon-object-store:0.1.0 .
#
# No docker was at hand: infra/images/try_in_chroot.py runs these instructions in a chroot, and what comes of it.
FROM docker.io/library/debian:12.12-slim@sha256:d5d3f9c23164ea16f31852f95bd5959aad1c5e854332fe00f7b3a20fcc9f635c AS base
COPY infra/images/steps/system.sh /steps/system.sh
RUN sh /steps/system.sh base
RUN sh /steps/system.sh object-store

FROM base AS image
WORKDIR /opt/solon
COPY infra/images/steps/user.sh /steps/user.sh
COPY infra/images/object_store /opt/solon/object_store
COPY infra/images/runtime/health.py /opt/solon/health.py
RUN sh /steps/user.sh /data
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SOLON_HEALTH_URL=http://127.0.0.1:8000/
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="solon-object-store" \
    org.opencontainers.image.description="Solon: an S3 server of one node for trying it on one machine" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="docker.io/library/debian:12.12-slim"
USER 10001:10001
VOLUME ["/data"]
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 CMD ["python3", "/opt/solon/health.py"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["python3", "/opt/solon/object_store/start.py"]
