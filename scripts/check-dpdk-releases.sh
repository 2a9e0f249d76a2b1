#!/usr/bin/env bash
# Type-checks ffi/shim.c, the bindings and everything that uses them against DPDK releases that are not installed: fetches
# their headers from Debian's suites and unpacks them into target/dpdk-releases. Nothing is installed, nothing is linked.
# usage: scripts/check-dpdk-releases.sh [SUITE ...]     (default: trixie, which has DPDK 24.11; sid: the newest)
# Debian has no suite with 23.11: Ubuntu 24.04 has it; there the usual build is the check.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

require_cargo
cd "$ROOT"
WORK=${CARGO_TARGET_DIR:-$ROOT/target}/dpdk-releases
suites=("$@")
[[ ${#suites[@]} -gt 0 ]] || suites=(trixie)

# apt with its own sources, lists and caches: the system's stay as they are.
apt_of() {
  local suite=$1
  shift
  "$1" -q -o Dir::Etc::sourcelist="$WORK/$suite/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$WORK/$suite/lists" -o Dir::Cache="$WORK/$suite/cache" "${@:2}"
}

# Unpacks the headers of a suite's libdpdk-dev into $WORK/SUITE/root.
fetch() {
  local suite=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$WORK/$suite"/{lists/partial,cache/archives/partial,root}
  echo "deb [signed-by=$keyring] http://deb.debian.org/debian $suite main" >"$WORK/$suite/sources.list"
  apt_of "$suite" apt-get update >/dev/null
  (cd "$WORK/$suite" && rm -f ./*.deb && apt_of "$suite" apt-get -o APT::Sandbox::User=root download libdpdk-dev >/dev/null)
  dpkg -x "$WORK/$suite"/libdpdk-dev_*.deb "$WORK/$suite/root"
}

# A pkg-config that finds those headers; what else libdpdk.pc asks for is taken from this machine.
pkg_config_of() {
  local root=$WORK/$1/root program=$WORK/$1/pkg-config pc
  pc=$(dirname -- "$(find "$root" -name libdpdk.pc)")
  cat >"$program" <<EOF
#!/bin/sh
PKG_CONFIG_LIBDIR="$pc:\$(pkg-config --variable pc_path pkg-config)"
export PKG_CONFIG_LIBDIR
words=\$(pkg-config "\$@") || exit
printf '%s\n' "\$words" | sed 's#-I/usr/include#-I$root/usr/include#g'
EOF
  chmod 755 "$program"
  echo "$program"
}

check() {
  local suite=$1 program version
  fetch "$suite" || return
  program=$(pkg_config_of "$suite") || return
  version=$("$program" --modversion libdpdk) || return
  say "DPDK $version"
  PKG_CONFIG=$program CARGO_TARGET_DIR=$WORK/build cargo check --quiet --lib --bins
}

for suite in "${suites[@]}"; do
  step "headers of $suite" check "$suite"
done
summary "$SECONDS"
