# Shorthands. Each recipe is one plain command, so that everything works without `just` too.

# list the recipes
default:
    @just --list

# all that must pass before a change is merged
check:
    .ci/run

# all tests
test *ARGS:
    cargo test --workspace --locked {{ARGS}}

# a whole alliance on this machine: start it, show what happens, stop it
tour *ARGS:
    cargo run --release --locked -p alliance-testnet -- up {{ARGS}}

# the documentation of the crates
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# write the test vectors of specs/vectors anew (needs python3 with blake3 and cryptography)
vectors:
    python3 protocol/tests/vectors/generate.py

# advisories, licences, banned crates and sources (needs cargo-deny)
deny:
    cargo deny --locked check

# format all Rust source
fmt:
    cargo fmt --all
