# syntax=docker/dockerfile:1
# The image of larder: one binary with every store and registry, and nothing else that runs.
#
#   docker buildx build --sbom=true --provenance=true --build-arg VERSION=0.1.0 -t larder:0.1.0 .
#
# In a pod it serves what is mounted at /etc/larder: docs/kubernetes.md.
FROM rust:1.95.0-bookworm AS build
ARG CYCLONEDX_VERSION=0.5.9
RUN cargo install --locked "cargo-cyclonedx@${CYCLONEDX_VERSION}"
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target scripts/image-root /image
# What the binary was built from, where scanners look for it; `--sbom=true` attests the same from outside.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo cyclonedx --format json --no-default-features --features image --override-filename larder.cdx \
    && install -D -m 644 larder.cdx.json /image/usr/share/sbom/larder.cdx.json

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="larder" \
      org.opencontainers.image.description="A sidecar caching proxy for online features, drop-in for Feast" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
# A number, so that `runAsNonRoot` can be checked.
USER 65532:65532
EXPOSE 6566 6567
ENTRYPOINT ["/larder"]
CMD ["--help"]
