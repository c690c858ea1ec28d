#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, lints, documentation, tests.
# Brings the MongoDB and Prometheus that the tests need; as root installs what else is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

# need COMMAND PACKAGE...: installs Debian's packages of all commands that are missing.
need() {
  local missing=()
  while (($#)); do
    # Debian keeps some where only root's path leads.
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing+=("$2")
    shift 2
  done
  ((${#missing[@]})) || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # What is recommended beside them are services: docker-compose would bring Docker.
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "error: missing; install them (Debian: apt-get install ${missing[*]})" >&2
    return 1
  fi
}

# Prometheus and promtool, out of Debian's package but not installed: it would start a service.
bring_prometheus() {
  command -v promtool >/dev/null 2>&1 && return
  [ "$(id -u)" != 0 ] || apt-get update -qq
  local work
  mkdir -p .cache
  work=$(mktemp -d .cache/prometheus.XXXXXX)
  (cd "$work" && apt-get download -qq prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb) || {
    rm -rf "$work"
    echo "error: prometheus and promtool are missing (Debian: both are in the package prometheus)" >&2
    return 1
  }
  mv "$work" .cache/prometheus
}

# What tests run beside Daybook.
bring_servers() {
  need logrotate logrotate gzip gzip node nodejs npm npm chromium chromium \
    docker-compose docker-compose sqlite3 sqlite3 jq jq systemd-analyze systemd
  bring_prometheus
  scripts/mongod.sh
  npm ci --prefix tests/browser --no-audit --no-fund --loglevel=error
}

export PATH="$PATH:$PWD/.cache/prometheus/usr/bin"
brought=$(mktemp)
trap 'wait; rm -f "$brought"' EXIT

step "tools"
need cargo cargo cc build-essential python3 python3
python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
# They come while the compiler works.
bring_servers >"$brought" 2>&1 &
servers=$!

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib -p daybook -p daybook-actors --quiet

step "servers"
wait "$servers" || { cat "$brought" >&2; exit 1; }
MONGOD=$(scripts/mongod.sh)
export MONGOD
"$MONGOD" --version | head -n 1

step "tests"
timeout 5400 scripts/run_tests.py
