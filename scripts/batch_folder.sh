#!/bin/sh
# Enhances every video in a folder and the folders below it, into folders of the same shape.
# What is done already is skipped, and what fails does not keep the rest from it.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 IN_DIR OUT_DIR [options of vsr enhance]" >&2
    exit 2
fi
in=${1%/} out=${2%/}
shift 2
[ -d "$in" ] || { echo "$0: $in: is no folder" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
find "$in" -type f ! -name '.*' \( -iname '*.mp4' -o -iname '*.mkv' -o -iname '*.mov' -o -iname '*.webm' \
    -o -iname '*.avi' -o -iname '*.m4v' -o -iname '*.ts' -o -iname '*.mpg' \) > "$work/files"
while IFS= read -r file; do
    below=${file#"$in"/}
    case $below in
        */*) folder=$out/${below%/*} ;;
        *) folder=$out ;;
    esac
    vsr enhance --output-dir "$folder" "$@" -- "$file" < /dev/null || echo "$file" >> "$work/failed"
done < "$work/files"
if [ -s "$work/failed" ]; then
    echo "these failed:" >&2
    cat "$work/failed" >&2
    exit 1
fi
