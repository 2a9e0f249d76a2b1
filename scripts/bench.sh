#!/usr/bin/env bash
# Measures the gateway: every figure is a ratio to a reference that runs interleaved with it on the same core.
# usage: scripts/bench.sh [CASE ...] [--quick] [--json FILE] [--record] [--no-build]
#        scripts/bench.sh instructions [--record]     counts instructions against benches/instructions.json
#        scripts/bench.sh compare BASE                what the changes since commit BASE did to counts and cycles
# Cases: forward cycles both-ways new-sessions latency workers memory control real receiver toa; all by default.
# --quick takes less than three minutes. Curves, JSON and the history of all runs: target/bench/. --record keeps the
# figures in benches/history.jsonl and shows them in README.md: on a calm machine, with everything committed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

require_cargo
cd "$ROOT"

case ${1:-} in
  instructions)
    scripts/bootstrap.sh build count
    exec "$PYTHON" scripts/bench/instructions.py "${@:2}"
    ;;
  compare)
    scripts/bootstrap.sh build bench
    exec "$PYTHON" scripts/bench/compare.py "${@:2}"
    ;;
  -h | --help) exec "$PYTHON" scripts/bench/main.py --help ;;
esac

require_root "scripts/bench.sh"
scripts/bootstrap.sh build bench
exec "$PYTHON" scripts/bench/main.py "$@"
