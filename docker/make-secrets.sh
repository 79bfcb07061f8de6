#!/bin/sh
# Make the passwords of the services, each in a file of its own, where there are none yet.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets # nobody else on this machine; in the containers each file is mounted alone
for name in postgres_password s3_access_key s3_secret_key; do
    [ -s "secrets/$name" ] && continue
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name"
    chmod 444 "secrets/$name"
done
echo "the secrets are in $(pwd)/secrets"
