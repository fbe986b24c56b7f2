#!/bin/sh
# A model of one's own text (a file, or a folder of files), asked to continue it:  DATA=~/notes sh examples/my-own-text.sh
set -e
DATA=${DATA:-README.md}
OUT=${OUT:-runs/mine}
hornbook tokenize "$DATA" --vocab 500
hornbook train llama-tiny --data "$DATA" --vocab 500 --context 64 --minutes 2 --dropout 0.1 --out "$OUT" "$@"
hornbook generate "$OUT" "The" --samples 3 --temperature 0.8 --top-p 0.95
