#!/bin/sh
# Enhances what is put into a folder, once it has stopped growing, until it is stopped (Ctrl-C).
# EVERY is the number of seconds between two looks.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: [EVERY=10] $0 IN_DIR OUT_DIR [options of vsr enhance]" >&2
    exit 2
fi
in=${1%/} out=${2%/}
shift 2
[ -d "$in" ] || { echo "$0: $in: is no folder" >&2; exit 2; }
work=$(mktemp -d)
child=
stop() {
    [ -z "$child" ] || kill "$child" 2> /dev/null || :
    wait
    exit "$1"
}
trap 'rm -rf "$work"' EXIT
trap 'stop 130' INT
trap 'stop 143' TERM
# A signal is heard while the shell waits for a child in the background, not for one in the foreground.
run() {
    "$@" < /dev/null &
    child=$!
    wait "$child" && status=0 || status=$?
    child=
    return "$status"
}
while :; do
    for file in "$in"/*; do
        [ -f "$file" ] || continue
        state=$work/${file##*/}
        bytes=$(wc -c < "$file")
        seen=$(cat "$state" 2> /dev/null || :)
        case $seen in
            "$bytes done") ;;
            "$bytes")
                run vsr enhance --output-dir "$out" "$@" -- "$file" || echo "$0: $file: failed" >&2
                echo "$bytes done" > "$state"
                ;;
            *) echo "$bytes" > "$state" ;;
        esac
    done
    run sleep "${EVERY:-10}"
done
