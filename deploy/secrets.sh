#!/bin/sh
# Draws every secret that docker-compose.yml needs, once, into SECRETS_DIR (of the environment, else
# of .env, as compose has it; default: secrets). What is there stays.
set -eu
if [ -z "${SECRETS_DIR:-}" ] && [ -e .env ]; then
    SECRETS_DIR=$(sed -n 's/^SECRETS_DIR=//p' .env | tail -n 1 | sed -e 's/[[:space:]]#.*$//' \
        -e 's/[[:space:]]*$//' -e 's/^"\(.*\)"$/\1/' -e "s/^'\(.*\)'\$/\1/")
fi
dir=${SECRETS_DIR:-secrets}
mkdir -p "$dir"
chmod 700 "$dir"

# No line break at the end: some programs take it for a part of the secret. Readable inside the
# containers, whose users differ; the directory is closed to others on this machine.
draw() {
    [ -e "$dir/$1" ] && return
    umask 022
    printf "${2:-%s}" "$(od -An -N"${3:-32}" -tx1 /dev/urandom | tr -d ' \n')" > "$dir/$1"
}
draw mongodb_keyfile %s 256
draw mongodb_root_password
draw store_url 'mongodb://daybook:%s@mongodb:27017/daybook?replicaSet=rs0&authSource=daybook'
draw grafana_password
draw authentik_secret_key %s 48
draw authentik_db_password
draw authentik_token %s 30
draw stalwart_key
draw stalwart_admin_password
echo "secrets are in $dir; Grafana's password: $dir/grafana_password"
