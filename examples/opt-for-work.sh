#!/bin/sh
# OPT from end to end: pretrained on WikiText-2, taught to classify film reviews and to summarise news, and both scored
# beside what knows nothing. Half an hour each on 2 CPU cores; of the summaries LIMIT says how many are scored.
set -e
DATA=${DATA:-wikitext-2}
OUT=${OUT:-runs/opt}
LEARN=${LEARN:---minutes 30}
TUNE=${TUNE:---minutes 30 --eval-examples 1000}
LIMIT=${LIMIT---limit 100}
hornbook train opt-tiny --data "$DATA" --vocab 8192 --context 512 $LEARN --out "$OUT" "$@"
hornbook finetune "$OUT" imdb $TUNE --out "$OUT-imdb"
hornbook finetune "$OUT" cnn-dailymail $TUNE --patience 3 --out "$OUT-summaries"
hornbook evaluate "$OUT-imdb" --show 3
hornbook evaluate "$OUT-summaries" --show 3 $LIMIT
hornbook report "$OUT-imdb"
hornbook report "$OUT-summaries"
