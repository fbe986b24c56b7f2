#!/bin/sh
# The tutorial's bigram: counted, sampled from "the", measured its way and honestly.
# Further arguments go to the training:  DATA=my.txt sh examples/bigram.sh
set -e
DATA=${DATA:-wikitext-2}
OUT=${OUT:-runs/bigram}
hornbook train bigram-add-one --data "$DATA" --tokenizer word --out "$OUT" "$@"
hornbook generate "$OUT" "the" --tokens 20
hornbook evaluate "$OUT" --text "the cat sat on the mat" --text "the cat jumped over the moon"
hornbook evaluate bigram "$DATA" --protocol tutorial
hornbook evaluate "$OUT" "$DATA"
