#!/bin/sh
# The tutorial's RNN with attention and its settings: width 124, GPT-2's tokens, Adafactor at 0.01, 10 epochs.
# It reports 561.29 per token of lines cut at 128. About an hour on 2 cores.
# TOKENIZER is a folder with GPT-2's encoder.json and vocab.bpe, or a tokenizer.json.
set -e
DATA=${DATA:-wikitext-2}
OUT=${OUT:-runs/rnn-attention-tutorial}
TOKENIZER=${TOKENIZER:-${HORNBOOK_DATA:-data}/gpt2-bpe}
hornbook train rnn-attention --data "$DATA" --tokenizer "$TOKENIZER" --out "$OUT" \
  --cell tanh --dim 124 --context 128 --batch 128 --epochs 10 \
  --optimizer adafactor --lr 0.01 --warmup 100 --schedule linear --weight-decay 0.01 "$@"
hornbook evaluate "$OUT" "$DATA" --protocol tutorial
hornbook evaluate "$OUT" "$DATA"
hornbook generate "$OUT" "The quick brown fox" --tokens 50 --top-k 50 --temperature 0.7
