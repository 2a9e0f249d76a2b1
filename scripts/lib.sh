# shellcheck shell=bash
# What the scripts of this directory share. Sourced, never run.

# shellcheck disable=SC2034
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# Debian's python3: the scapy and pytest of the distribution belong to it, whatever else is first in PATH.
# shellcheck disable=SC2034
PYTHON=/usr/bin/python3

if [[ -t 1 ]]; then
  BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
  BOLD='' GREEN='' RED='' PLAIN=''
fi

say() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*"; }

die() {
  printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
  exit 1
}

require_root() {
  [[ $EUID -eq 0 ]] || die "$1 needs root (network namespaces, packet sockets); run it with sudo"
}

require_cargo() {
  command -v cargo >/dev/null || die "cargo is not in PATH; install the Rust toolchain from https://rustup.rs"
}

SUMMARY=()
FAILED=0

# step NAME COMMAND...: runs a command, times it and remembers how it ended.
step() {
  local name=$1 started=$SECONDS status=0
  shift
  say "$name"
  "$@" || status=$?
  local mark="${GREEN}ok${PLAIN}"
  if [[ $status -ne 0 ]]; then
    mark="${RED}FAILED ($status)${PLAIN}"
    FAILED=1
  fi
  SUMMARY+=("$(printf '%6ds  %-44s %s' $((SECONDS - started)) "$name" "$mark")")
  return 0
}

# begin COMMAND...: runs a command beside the next steps; its words are kept for `finished`. One at a time.
begin() {
  BEGUN_LOG=$(mktemp)
  "$@" >"$BEGUN_LOG" 2>&1 &
  BEGUN=$!
  trap 'kill "$BEGUN" 2>/dev/null || true; rm -f "$BEGUN_LOG"' EXIT
}

# finished: what was begun, once it has ended: its words and its status.
finished() {
  local status=0
  wait "$BEGUN" || status=$?
  trap - EXIT
  cat "$BEGUN_LOG"
  rm -f "$BEGUN_LOG"
  return "$status"
}

# summary [SECONDS_MAX]: prints what every step took; status 0 only if all of them succeeded. Time beyond SECONDS_MAX is
# said and no failure: machines differ, and what they share wanders.
summary() {
  local most=${1:-$SECONDS} total=$SECONDS
  printf '\n'
  printf '%s\n' "${SUMMARY[@]}"
  printf '%6ds  in all\n' "$total"
  [[ $total -le $most ]] ||
    printf '%swarning: more than the %d s that this may take on 2 cores%s\n' "$RED" "$most" "$PLAIN"
  return "$FAILED"
}
