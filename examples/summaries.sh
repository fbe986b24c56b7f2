#!/bin/sh
# A chat model of 135 million parameters learns to summarise news by an adapter: scored before and after, beside the
# first three sentences.
set -e
MODEL=${MODEL:-hf:HuggingFaceTB/SmolLM2-135M-Instruct}
TASK=${TASK:-cnn-dailymail}
OUT=${OUT:-runs/summaries}
TUNE=${TUNE:---epochs 1 --context 1024 --batch 4}
hornbook evaluate "$MODEL" "$TASK" --split test --context 1024
hornbook finetune "$MODEL" "$TASK" --lora 16 $TUNE --out "$OUT"
hornbook evaluate "$OUT" "$TASK" --split test --show 5
