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

# write the vectors of the law anew (needs python3)
law-vectors:
    python3 policy/tests/vectors/generate.py

# prove the law packs, every pair of members included (needs cvc5)
prove:
    ALLIANCE_PROOFS=all cargo test --release --locked -p alliance-proofs -- --nocapture

# a million random crossings against plain Cedar, and every mutant of every rule
law:
    ALLIANCE_CROSSINGS=1000000 ALLIANCE_MUTANTS=all cargo test --release --locked -p alliance-policy --test it -- --nocapture

# how long a decision takes, beside plain Cedar
bench:
    cargo bench --locked -p alliance-policy --bench decisions

# advisories, licences, banned crates and sources (needs cargo-deny)
deny:
    cargo deny --locked check

# format all Rust source
fmt:
    cargo fmt --all
