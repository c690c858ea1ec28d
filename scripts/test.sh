#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, lints, documentation, tests.
# Brings the MongoDB server that the tests need; installs nothing else but what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

need() {
  command -v "$1" >/dev/null 2>&1 && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && apt-get install -y -qq "$2" >/dev/null
  else
    echo "error: $1 is missing; install it (Debian: apt-get install $2)" >&2
    exit 1
  fi
}

step "tools"
need cargo cargo
need cc build-essential
need python3 python3
# Debian keeps it where only root's path leads.
[ -x /usr/sbin/logrotate ] || need logrotate logrotate
need gzip gzip
need node nodejs
need npm npm
need chromium chromium
need prometheus prometheus # and promtool with it
need docker-compose docker-compose
python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
MONGOD=$(scripts/mongod.sh)
export MONGOD
"$MONGOD" --version | head -n 1
npm ci --prefix tests/browser --no-audit --no-fund --loglevel=error

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

step "tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
timeout 2400 cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$log"
if grep -Eq '^test result: .* [1-9][0-9]* ignored' "$log"; then
  echo "error: a test was skipped" >&2
  exit 1
fi
passed=$(awk '/^test result:/ { sum += $4 } END { print sum + 0 }' "$log")
printf '\n%s passed, 0 failed\n' "$passed"
