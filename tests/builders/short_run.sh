# Stands in for a short `ablate run` that is killed again and again; what it has finished it does not do again.
folder=$(dirname "$1")
exec 9> "$folder/alone"
flock -n 9 || echo doubled >> "$folder/doubled"
[ -s "$folder/ran" ] || sleep 0.3 9>&-
[ -s "$folder/ran" ] || echo worked >> "$folder/ran"
