#!/bin/sh
# Summaries of one's own documents: every .txt file below a folder, by a chat model, without a network once it is there.
#   DATA=~/documents sh examples/summarise-documents.sh
# Line by line, summaries.jsonl goes with the names in summaries-files.txt.
# MODEL may be a run of examples/summaries.sh too. Of a long document the first LETTERS letters are read.
set -e
DATA=${DATA:-documents}
MODEL=${MODEL:-hf:HuggingFaceTB/SmolLM2-135M-Instruct}
OUT=${OUT:-summaries}
LETTERS=${LETTERS:-6000}
python3 - "$DATA" "$LETTERS" "$OUT-files.txt" > "$OUT-prompts.jsonl" <<'END'
import json, pathlib, sys
files = sorted(pathlib.Path(sys.argv[1]).rglob("*.txt"))
pathlib.Path(sys.argv[3]).write_text("".join(f"{path}\n" for path in files), encoding="utf-8")
for path in files:
    text = path.read_text(encoding="utf-8", errors="replace")[: int(sys.argv[2])]
    print(json.dumps({"prompt": f"Summarise this text in a few short sentences.\n\n{text}"}))
END
hornbook generate "$MODEL" --file "$OUT-prompts.jsonl" --out "$OUT.jsonl" --chat --temperature 0 --tokens 160 "$@"
