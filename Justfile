# What people type, in one place.

run:
    cargo run --release -- serve

demo:
    cargo run --release -- demo

test:
    cargo test

lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

openapi:
    cargo run -- openapi > openapi/openapi.json
