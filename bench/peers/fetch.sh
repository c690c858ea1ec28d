#!/usr/bin/env bash
# Unpacks the peers into a folder of their own, without installing anything: rsyslog and syslog-ng of
# Debian, which exclude each other as packages, and the MongoDB driver for Node.
set -euo pipefail

readonly here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly into=${1:?a folder}

mkdir -p "$into/debs" "$into/script"
if [[ ! -x $into/usr/sbin/rsyslogd || ! -x $into/usr/sbin/syslog-ng ]]; then
    (
        cd "$into/debs"
        apt-get download rsyslog rsyslog-mongodb syslog-ng-core syslog-ng-mod-mongodb \
            libbson-1.0-0 libestr0 libfastjson4 libivykis0 liblognorm5 libmongoc-1.0-0 \
            libmongocrypt0 libpcre3 libsnappy1v5
        for package in *.deb; do dpkg -x "$package" "$into"; done
    ) >&2
fi
# On a merged file system both are one folder; here they have to be made one.
if [[ -d $into/lib/x86_64-linux-gnu ]]; then
    cp -an "$into/lib/x86_64-linux-gnu/." "$into/usr/lib/x86_64-linux-gnu/"
fi
cp "$here/script.mjs" "$here/package.json" "$into/script/"
if [[ ! -d $into/script/node_modules/mongodb ]]; then
    (cd "$into/script" && npm install --silent) >&2
fi
