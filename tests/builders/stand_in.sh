# Stands in for `ablate run` where a test asks what a dispatcher does: it waits for a file that has its exit code.
folder=$(dirname "$1")
trap 'echo stopped >> "$folder/ran"; exit 130' TERM
echo "started $3 $4" >> "$folder/ran"
while [ ! -e "$folder/go" ]; do sleep 0.02; kill -0 "$2" || exit 3; done  # $2: the tests
echo "the end"
exit "$(cat "$folder/go")"
