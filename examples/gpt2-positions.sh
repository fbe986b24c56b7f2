#!/bin/sh
# GPT-2 brought in, and its positions drawn: the table as a picture, and columns of it over the position. Nobody told it
# of sinusoids. MODEL may be any run or folder with learned positions.
set -e
MODEL=${MODEL:-gpt2}
OUT=${OUT:-runs/openai}
[ -d "$OUT" ] || hornbook import "$MODEL" "$OUT"
hornbook inspect "$OUT" --pictures "$OUT-pictures" --picture positions "$@"
