#!/usr/bin/env bash
# Prints which rows of tests/conformance.tsv have a test that carries their id in its name, by severity.
# A test says so by its name: `conformance_g1_...` in Rust, `test_conformance_G1_...` in Python; several ids may follow.
# A test that never runs (`#[ignore]`, `@pytest.mark.skip`) holds nothing. Ends with 1 if a test names what is no row.
# usage: scripts/conformance.sh [--missing S1|S2|S3|S4]     (--missing lists those rows only; default: all severities)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

only=${2:-}
[[ ${1:-} == "" || (${1:-} == --missing && -n $only) ]] || die "usage: scripts/conformance.sh [--missing S1]"

# The first lines of all tests that run and say that they hold a row.
running_tests() {
  find "$ROOT/src" "$ROOT/tests" \( -name '*.rs' -o -name '*.py' \) -exec awk '
    FNR == 1 { ignored = 0 }
    /^ *#\[(ignore|cfg_attr\(.*ignore)/ || /^ *@pytest\.mark\.skip(\(|$)/ { ignored = 1 }
    /^ *(fn|def) / { if (!ignored && /conformance_/) print; ignored = 0 }' {} +
}

running_tests | grep -oiE 'conformance(_[a-p][0-9]+)+' |
  tr '[:lower:]' '[:upper:]' | grep -oE '_[A-P][0-9]+' | tr -d _ | sort -u |
  awk -F'\t' -v only="$only" '
    FILENAME == "-" { covered[$1] = 1; next }
    FNR == 1 { next }
    {
      severity = $5
      total[severity]++
      if ($1 in covered) { have[severity]++; list[severity] = list[severity] " " $1; known[$1] = 1 }
      else missing[severity] = missing[severity] sprintf("    %-4s %s\n", $1, $2)
    }
    { row[$1] = 1 }
    END {
      for (id in covered) if (!(id in row)) { print "a test names " id ", which is no row" > "/dev/stderr"; bad = 1 }
      for (s = 1; s <= 4; s++) {
        name = "S" s
        if (only == "" || only == name) {
          printf "%s: %d of %d rows covered\n", name, have[name], total[name]
          if (only == "") printf "  covered:%s\n", list[name]
          printf "  not covered:\n%s", missing[name]
        }
      }
      exit bad
    }' - "$ROOT/tests/conformance.tsv"
