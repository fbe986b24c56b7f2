#!/bin/sh
# A chat model of 135 million parameters learns to summarise news by an adapter: scored before and after, beside the
# first three sentences. With these limits about an hour on 2 CPU cores; on a GPU let LIMIT= and TUNE="--epochs 1".
set -e
MODEL=${MODEL:-hf:HuggingFaceTB/SmolLM2-135M-Instruct}
TASK=${TASK:-cnn-dailymail}
OUT=${OUT:-runs/summaries}
TUNE=${TUNE:---steps 200 --context 1024 --batch 4}
LIMIT=${LIMIT---limit 100}
hornbook evaluate "$MODEL" "$TASK" --split test --context 1024 $LIMIT
hornbook finetune "$MODEL" "$TASK" --lora 16 $TUNE --out "$OUT"
hornbook evaluate "$OUT" "$TASK" --split test --show 5 $LIMIT
