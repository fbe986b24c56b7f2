#!/bin/sh
# The ladder of the README: WikiText-2, every neural rung for 10 minutes. About an hour on 2 cores.
set -e
DATA=${DATA:-wikitext-2}
OUT=${OUT:-runs/ladder-wikitext-2}
hornbook ladder "$DATA" --out "$OUT" --minutes 10 --vocab 8192 \
  --rungs bigram trigram 5gram llama-small rnn rnn-attention gpt2-small opt-small "$@"
