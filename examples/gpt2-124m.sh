#!/bin/sh
# GPT-2 124M on 10 billion tokens of FineWeb-Edu, meant to surpass OpenAI's. Hours on a large GPU; docs/gpt2-124m.md has
# the reason for each number, the cost, what to expect, and a rehearsal.
# TOKENIZER is a folder with GPT-2's encoder.json and vocab.bpe, or any tokenizer.json. ROWS of 1,024 tokens are computed
# at once: 64 on 80 GB, 16 on 24 GB. RECIPE=muon takes our optimiser and schedule instead of GPT-3's. ITEMS of HellaSwag
# are scored at the end; 0 for all.
set -e
DATA=${DATA:-fineweb-edu}
OUT=${OUT:-runs/gpt2-124m}
TOKENIZER=${TOKENIZER:-${HORNBOOK_DATA:-data}/gpt2-bpe}
ROWS=${ROWS:-64}
case ${RECIPE:-gpt3} in
  gpt3) RATES="--optimizer adamw --lr 6e-4 --schedule cosine" ;;
  muon) RATES="--optimizer muon --lr 1.2e-3 --schedule wsd" ;;
  *) echo "RECIPE is gpt3 or muon, not $RECIPE" >&2; exit 2 ;;
esac
hornbook train gpt2 --data "$DATA" --tokenizer "$TOKENIZER" --out "$OUT" \
  --context 1024 --batch "$ROWS" --accumulate $((512 / ROWS)) --steps 19073 $RATES --warmup 715 \
  --weight-decay 0.1 --beta2 0.95 --clip 1 --eval-every 250 \
  --eval-tokens 1000000 --tasks hellaswag --prompt "Hello, I'm a language model," "$@"
hornbook evaluate "$OUT" "$DATA"
hornbook evaluate "$OUT" hellaswag --limit "${ITEMS:-0}"
