#!/usr/bin/env bash
# Everything that has to hold before a change goes in: format, lints, documents, unit, property and golden tests, and
# the end-to-end tests in network namespaces.
# usage: scripts/test.sh [--quick] [-k EXPRESSION]
#   --quick  leaves out the end-to-end tests that take long (bulk transfers, thousands of connections)
#   -k       runs only the end-to-end tests that match, as pytest understands it
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# What a whole run may take on 2 cores, the installing of packages and a first build included.
SECONDS_MAX=1500

pytest_arguments=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --quick) pytest_arguments+=(-m "not long") ;;
    -k) pytest_arguments+=(-k "${2:?-k needs an expression}") && shift ;;
    *) die "usage: scripts/test.sh [--quick] [-k EXPRESSION]" ;;
  esac
  shift
done

require_root "scripts/test.sh"
require_cargo
cd "$ROOT"

documents() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items; }

unit() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --lib --bins --tests --status-level fail && cargo test --doc
  else
    cargo test
  fi
}

# The programs and the bench of the engine in one build, so that what they share is compiled once.
release_build() { cargo build --release --bins --example engine; }

# The same on every machine, hence gated; benches/instructions.json is the record.
instructions() { scripts/bench.sh instructions; }

# Frames, configurations and generator profiles of the benches, without running one.
bench_scripts() { "$PYTHON" -m pytest -q scripts/bench/tests; }

shell_lint() { shellcheck -x scripts/*.sh .ci/run; }

end_to_end() {
  "$PYTHON" -m pytest -c tests/e2e/pytest.ini tests/e2e --durations 15 "${pytest_arguments[@]}"
}

# Fails if a test names what is no row; shows the sums only.
conformance() {
  local rows
  rows=$(scripts/conformance.sh) || return
  grep "rows covered" <<<"$rows"
}

step "packages" scripts/bootstrap.sh build test count
[[ $FAILED -eq 0 ]] || die "the packages could not be installed"
# Beside the lints and the tests of the debug build: much of either build keeps one core alone busy.
begin release_build
step "format" cargo fmt --check
step "shell scripts" shell_lint
step "lints" cargo clippy --all-targets -- -D warnings
step "lints without dpdk" cargo clippy --no-default-features --all-targets -- -D warnings
step "documents" documents
step "unit, property and golden tests" unit
step "bench scripts and profiles" bench_scripts
step "release build" finished
step "instruction counts" instructions
step "end to end" end_to_end
step "conformance rows all known" conformance
summary "$SECONDS_MAX"
