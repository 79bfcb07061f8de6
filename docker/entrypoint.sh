#!/bin/sh
# Secrets come as files: what stands in a container's configuration, `docker inspect` shows to everybody.
set -eu
for name in PGPASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY MLFLOW_TRACKING_PASSWORD; do
    eval "file=\${${name}_FILE:-}"
    [ -z "$file" ] && continue
    [ -r "$file" ] || { echo "$name: $file cannot be read by user $(id -u): chmod a+r, see docker/README.md" >&2; exit 2; }
    export "$name=$(cat "$file")"
done
exec "$@"
