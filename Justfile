# What people type, in one place. `just --list` names it all.

# The server, on http://127.0.0.1:8111.
run *ARGS:
    cargo run --release -- serve {{ARGS}}

# The main job from end to end, on a small model.
demo:
    cargo run --release -- demo

test *ARGS:
    cargo test --locked {{ARGS}}

lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --open

# After a change of the API.
openapi:
    cargo run -- openapi > openapi/openapi.json

# All that a change must pass.
ci:
    .ci/run

# Licences, advisories and sources of what we depend on; needs `cargo install cargo-deny`.
deny:
    cargo deny --locked check
