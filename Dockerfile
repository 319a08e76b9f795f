# walferry in a small image: docker build --build-arg WALFERRY_COMMIT=$(git rev-parse HEAD) -t walferry .
FROM rust:1.95-slim-trixie AS build
# For librdkafka, its TLS, and the allocator.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libssl-dev make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /walferry
COPY . .
ARG WALFERRY_COMMIT
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/walferry/target \
    cargo build --release --locked -p walferry \
    && cp target/release/walferry /usr/local/bin/walferry

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3t64 zlib1g \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/walferry /usr/local/bin/walferry
# Large rows wait here as files; a volume of its own lets the root be read-only.
RUN install --directory --owner=65532 --group=65532 /var/lib/walferry
USER 65532:65532
ENV WALFERRY_CONFIG=/etc/walferry/walferry.toml TMPDIR=/var/lib/walferry
ENTRYPOINT ["walferry"]
CMD ["run"]
