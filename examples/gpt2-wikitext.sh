#!/bin/sh
# The tutorial's small GPT-2 and its settings: 4 layers of 768, 4 heads, context 128, 5e-5, 500 steps of warm-up.
# The tutorial never prints its perplexity. Many hours on 2 cores: meant for a GPU.
# TOKENIZER is a folder with GPT-2's encoder.json and vocab.bpe, or any tokenizer.json.
set -e
DATA=${DATA:-wikitext-2}
OUT=${OUT:-runs/gpt2-tutorial}
TOKENIZER=${TOKENIZER:-${HORNBOOK_DATA:-data}/gpt2-bpe}
hornbook train gpt2-tiny --data "$DATA" --tokenizer "$TOKENIZER" --out "$OUT" \
  --layers 4 --dim 768 --heads 4 --context 128 --batch 128 --epochs 3 \
  --optimizer adamw --lr 5e-5 --warmup 500 --schedule linear --weight-decay 0.01 --dropout 0.1 "$@"
hornbook evaluate "$OUT" "$DATA" --protocol tutorial
hornbook evaluate "$OUT" "$DATA"
hornbook generate "$OUT" "the cat"
