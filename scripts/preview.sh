#!/bin/sh
# Five seconds from the middle of a video, before and after, parted by a moving line.
set -eu
if [ $# -lt 1 ]; then
    echo "usage: $0 IN [OUT] [options of vsr preview]" >&2
    exit 2
fi
length=$(ffprobe -v error -show_entries format=duration -of csv=p=0 "$1")
middle=$(awk "BEGIN { at = ${length:-0} / 2 - 2.5; print (at > 0 ? at : 0) }")
exec vsr preview "$@" --at "$middle" --duration 5
