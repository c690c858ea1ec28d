#!/bin/sh
# Gathers the smallest root file system in which the binary runs: `deploy/rootfs.sh BINARY DIRECTORY`.
# The binary, the libraries it is linked to, the certificates it trusts, the time zones, one user. No shell.
set -eu
binary=$1
root=$2

mkdir -p "$root/usr/bin" "$root/usr/share" "$root/etc/ssl/certs" "$root/etc/daybook" "$root/var/lib/daybook" "$root/tmp"
cp "$binary" "$root/usr/bin/daybook"
ldd "$binary" | grep -o '/[^ )]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp -R /usr/share/zoneinfo "$root/usr/share/"
# The same zones again, in forms that nobody here reads.
rm -rf "$root/usr/share/zoneinfo/posix" "$root/usr/share/zoneinfo/right"
printf 'daybook:x:65532:65532::/var/lib/daybook:/nonexistent\n' > "$root/etc/passwd"
printf 'daybook:x:65532:\n' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
if [ "$(id -u)" = 0 ]; then
    chown 65532:65532 "$root/var/lib/daybook"
fi
