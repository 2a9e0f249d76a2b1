#!/usr/bin/env bash
# Installs the Debian packages that a part of the project needs and that are not there yet.
# usage: scripts/bootstrap.sh [build|receiver|demo|test|count|bench ...]     (default: build demo test)
# Prints nothing when nothing is missing. Services that come with a package (nginx, redis, sshd ...) are not started.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

declare -A PACKAGES=(
  [build]="build-essential pkg-config libdpdk-dev libclang-dev clang libbpf-dev linux-libc-dev"
  [receiver]="build-essential clang libbpf-dev linux-libc-dev"
  [demo]="iproute2 ethtool nginx-light curl wrk python3-scapy"
  [test]="dpdk-dev iproute2 ethtool nftables nginx-light libnginx-mod-stream haproxy redis-server postgresql openssh-server curl wrk iperf3
          tshark bind9-dnsutils dnsmasq-base dnsperf iputils-ping iputils-tracepath python3-scapy python3-pytest python3-pytest-timeout shellcheck
          lua5.4"
  [count]="valgrind"
  [bench]="dpdk valgrind python3-matplotlib python3-scapy iproute2 ethtool nftables nginx-light libnginx-mod-stream
           haproxy wrk iperf3 curl procps python3-pytest lua5.4"
)

groups=("$@")
[[ ${#groups[@]} -gt 0 ]] || groups=(build demo test)

wanted=()
for group in "${groups[@]}"; do
  [[ -n ${PACKAGES[$group]:-} ]] || die "unknown group '$group'; there are: ${!PACKAGES[*]}"
  # shellcheck disable=SC2206
  wanted+=(${PACKAGES[$group]})
done

command -v dpkg-query >/dev/null || die "this is not Debian or a relative of it; install by hand: ${wanted[*]}"

missing=()
while read -r package; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done < <(printf '%s\n' "${wanted[@]}" | sort -u)
[[ ${#missing[@]} -gt 0 ]] || exit 0

[[ $EUID -eq 0 ]] || die "missing packages; as root: apt-get install --no-install-recommends ${missing[*]}"

# While it exists, invoke-rc.d starts no service that apt installs.
POLICY=/usr/sbin/policy-rc.d
if [[ ! -e $POLICY ]]; then
  trap 'rm -f "$POLICY"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod 755 "$POLICY"
fi

say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
APT=(apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
LOG=$(mktemp)
# One line that counts up instead of a thousand; everything is in the log.
install_missing() {
  "${APT[@]}" install --no-install-recommends "${missing[@]}" 2>&1 | tee "$LOG" |
    awk '/ newly installed, / { total = $3 } /^(Get:|Unpacking|Setting up)/ {
           step[$1 == "Unpacking" ? "unpacked" : $1 == "Setting" ? "set up" : "fetched"]++
           if (++lines % 25 == 0) printf "  of %d packages %d fetched, %d unpacked, %d set up\n",
             total, step["fetched"], step["unpacked"], step["set up"]; fflush() }'
}
# A list of packages may be there and fresh: try first, fetch it only when that fails.
if ! install_missing; then
  say "fetching the package lists"
  "${APT[@]}" update >/dev/null || die "apt-get update failed; is the network there?"
  install_missing || { tail -n 20 "$LOG" >&2; die "apt-get could not install: ${missing[*]}"; }
fi
rm -f "$LOG"
say "installed"
