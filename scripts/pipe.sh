#!/bin/sh
# Filters with ffmpeg, enhances through a pipe, and encodes with ffmpeg; sound and subtitles are copied from IN.
# FILTER is an ffmpeg filter for before, ENCODE are ffmpeg's options for after.
# Example: FILTER=hqdn3d ENCODE='-c:v libx265 -crf 20' scripts/pipe.sh in.mp4 out.mkv --model fast
set -eu
if [ $# -lt 2 ]; then
    echo "usage: [FILTER=...] [ENCODE=...] $0 IN OUT [options of vsr enhance]" >&2
    exit 2
fi
in=$1 out=$2
shift 2
[ ! -e "$out" ] || { echo "$0: $out: exists already" >&2; exit 3; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# NUT takes frames of any format with their times, but nothing about their colour, which is said again at the end.
color=$(ffprobe -v error -select_streams v:0 -of default=noprint_wrappers=1 \
    -show_entries stream=color_range,color_space,color_transfer,color_primaries "$in" |
    sed -n -e '/unknown/d' -e 's/^color_range=/-color_range /p' -e 's/^color_space=/-colorspace /p' \
        -e 's/^color_transfer=/-color_trc /p' -e 's/^color_primaries=/-color_primaries /p')
tick=$(ffprobe -v error -select_streams v:0 -show_entries stream=time_base -of csv=p=0 "$in" | head -n 1 | tr / :)
times="-copyts -fps_mode passthrough -enc_time_base ${tick%,}" # every frame stays at its own time
# A shell knows only how the last part of a pipe ended.
{ ffmpeg -nostdin -v error -i "$in" -map 0:v:0 -vf "${FILTER:-null}" $times -c:v rawvideo -f nut - ||
    echo $? > "$work/failed"; } |
    { vsr enhance - - -f nut "$@" || echo $? > "$work/failed"; } |
    ffmpeg -v error -f nut -i - -i "$in" -map 0:v -map '1:a?' -map '1:s?' -map_chapters 1 -map_metadata 1 \
        $times $color -avoid_negative_ts disabled ${ENCODE:--c:v libx264 -crf 18} -c:a copy -c:s copy "$out" ||
    echo $? > "$work/failed"
if [ -s "$work/failed" ]; then
    rm -f "$out"
    exit "$(cat "$work/failed")"
fi
