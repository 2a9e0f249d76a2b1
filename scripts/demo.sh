#!/usr/bin/env bash
# The gateway at work on this machine, from nothing: installs what is missing, builds, makes network namespaces with a
# client and two real servers, sends requests through the gateway and shows what became of each.
# usage: scripts/demo.sh [--keep]     (--keep: leaves everything running to play with until Ctrl-C)
# Ends with status 0 only if everything was as it should be.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

[[ $# -eq 0 || ($# -eq 1 && $1 == --keep) ]] || die "usage: scripts/demo.sh [--keep]"
require_root "scripts/demo.sh"
require_cargo
cd "$ROOT"

started=$EPOCHSECONDS
scripts/bootstrap.sh build demo
say "building (release)"
cargo build --release --bins
exec env DEMO_STARTED="$started" "$PYTHON" scripts/demo.py "$@"
