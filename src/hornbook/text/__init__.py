"""Where text comes from (`corpora`) and how it becomes tokens (`tokenizers`). Nothing here imports torch."""
