#!/bin/sh
# The tutorial's OPT and its settings: 6 layers of 512, 8 heads, context 128, batches of 16, Adam at 1e-4, 3 epochs;
# with the causal mask, shifted targets and the schedule that it lacks.
# TOKENIZER is a folder with GPT-2's encoder.json and vocab.bpe, or any tokenizer.json.
set -e
DATA=${DATA:-wikitext-2}
OUT=${OUT:-runs/opt-tutorial}
TOKENIZER=${TOKENIZER:-${HORNBOOK_DATA:-data}/gpt2-bpe}
hornbook train opt-tiny --data "$DATA" --tokenizer "$TOKENIZER" --out "$OUT" \
  --layers 6 --dim 512 --heads 8 --context 128 --batch 16 --epochs 3 \
  --optimizer adamw --lr 1e-4 --warmup 100 --schedule linear --weight-decay 0 "$@"
hornbook evaluate "$OUT" "$DATA" --protocol tutorial
hornbook evaluate "$OUT" "$DATA"
hornbook generate "$OUT" "The game"
