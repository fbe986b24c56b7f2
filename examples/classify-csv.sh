#!/bin/sh
# Classes of one's own: a table with a text and its class in each row.
#   DATA=reviews.csv TEXT=review LABEL=stars sh examples/classify-csv.sh
# A small Llama first learns the texts' language, from nearly all rows without their labels, then the classes, from four
# fifths of them; on the labels of the others it is scored, beside the majority and TF-IDF, which wins with few rows. With
# MODEL, a run or a model folder, that is taught instead, and never sees a text of those.
set -e
DATA=${DATA:-reviews.csv}
TEXT=${TEXT:-text}
LABEL=${LABEL:-label}
OUT=${OUT:-runs/classes}
LEARN=${LEARN:---minutes 5}
TUNE=${TUNE:---minutes 5}
if [ -z "$MODEL" ]; then
  MODEL=$OUT-language
  hornbook train llama-tiny --data "$DATA" --column "$TEXT" $LEARN --out "$MODEL" "$@"
fi
hornbook finetune "$MODEL" "$DATA" --task classify --text "$TEXT" --label "$LABEL" $TUNE --out "$OUT"
hornbook evaluate "$OUT" --show 5
hornbook report "$OUT"
