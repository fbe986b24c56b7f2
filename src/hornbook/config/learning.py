"""How a model learns, and `hornbook train`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from hornbook.config.checks import above_zero, require, require_words, zero_or_more
from hornbook.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a model learns, whatever it learns: length, optimiser, and what the machine decides where nothing is said."""

    out: str | None = None
    """The run folder; default a name made of the other two. The same command again carries on where it stopped."""
    steps: int | None = None
    """Length of the run in optimiser steps. One of steps, epochs and minutes."""
    epochs: float | None = None
    minutes: float | None = None
    """Length in wall-clock minutes, compilation included; the same again bit for bit only by train --like."""
    lora: int | None = None
    """LoRA: leave the model's weights as they are, and train beside them matrices of this rank, such as 8."""
    lora_alpha: float | None = None
    """Their product counts alpha / rank times; default twice the rank."""
    lora_dropout: float | None = None
    """Probability, on what they read, while training; default 0."""
    lora_targets: tuple[str, ...] | None = None
    """Linear layers that get them, by name: query, mlp.down, blocks.0, ...; default all, those of every block."""
    batch: int | Literal["auto"] = 16
    """Rows in a batch; auto for the most that fit into memory and are fastest."""
    accumulate: int = 1
    """Batches to a step."""
    rows: int | None = None
    """Rows of a batch that are computed at once, which changes memory and not the result; default all."""
    optimizer: Literal["adamw", "adafactor", "muon"] | None = None
    """Default: the rung's own recipe; further, what the run was trained with, else adamw, as for LoRA."""
    lr: float | None = None
    """Peak learning rate; default the rung's own recipe, or by optimiser where another one is asked for; further, a
    tenth of the latter."""
    find_lr: bool = False
    """Do not train: try rising learning rates, draw the loss over them, suggest one."""
    weight_decay: float = 0.1
    beta2: float = 0.95
    """AdamW's decay of squared gradients."""
    warmup: int = 50
    """Steps over which the learning rate rises; in finetuning at most a tenth of a run of known length."""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "wsd"
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    eval_every: int = 0
    """Steps between evaluations; 0 for ten in the run, fewer in one of a minute or two."""
    patience: int = 0
    """Stop after so many evaluations without a better one; 0 never stops early."""
    track: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Show the run there too, while it is on; one or several. wandb stays offline unless WANDB_API_KEY is set."""
    snapshots: int | None = None
    """Keep the model as it is every so many steps, two bytes a number, for pictures of how it changes."""
    seed: int = 0
    guard: Literal["stop", "skip"] = "stop"
    """What a loss that is no number, or a spike, does: end the run, or leave out that step and write it down."""
    spike: float = 0.0
    """Deviations above the mean of the last 100 losses that make a spike; 0 for none."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: Literal["auto", "yes", "no"] = "auto"
    attention: Literal["auto", "fused", "written-out", "flex"] = "auto"
    """The kernel; auto measures."""
    threads: int | None = None
    """Threads of a CPU; default the number that is fastest."""
    float32_matmul: Literal["auto", "highest", "high", "medium"] = "auto"
    """Products in float32, in torch's words; auto is TF32 on a GPU, and on a CPU the fastest that is as exact."""
    recompute: bool = False
    """Compute each block's activations again for its gradients: less memory, a third more work."""
    device: str | None = None
    """cpu, cuda or mps; default the best there is."""
    parallel: Literal["data", "shard", "hybrid"] = "data"
    """Under torchrun: a whole model in each process (data), one spread over all (shard), or over each machine's
    (hybrid)."""
    tensor: int = 1
    """Under torchrun: processes that share each matrix, and read the same rows."""
    timeout: float = 600.0
    """Seconds that processes wait for each other before the run ends with who is missing."""
    context: int | None = None
    """Tokens in a row; default the model's, of one that is trained further at most 1,024."""
    dropout: float | None = None

    def __post_init__(self) -> None:
        require_words(self)
        length = ("steps", "epochs", "minutes", "accumulate", "rows", "threads", "lora", "lora_alpha", "context")
        above_zero(self, *length, "tensor", "timeout", "snapshots")
        require(self, ("batch",), lambda x: x == "auto" or x > 0, "above 0, or auto")
        require(self, ("epochs", "minutes"), math.isfinite, "a finite number")
        require(self, ("seed",), lambda x: x < 2**63, "below 2^63")
        require(self, ("timeout",), lambda x: x <= 1e9, "at most 1e9 seconds")
        least = ("lr", "weight_decay", "warmup", "clip", "spike", "eval_every", "patience", "seed")
        zero_or_more(self, *least)
        require(self, ("dropout", "lora_dropout", "beta2"), lambda x: 0 <= x < 1, "at least 0 and below 1")
        if self.lora is None and (self.lora_alpha, self.lora_dropout, self.lora_targets) != (None, None, None):
            raise UserError("--lora-alpha, --lora-dropout and --lora-targets belong to --lora RANK, such as --lora 8")


@dataclass(frozen=True)
class Train(Learning):
    """Pretrain any rung, or train a model further: hornbook train llama-tiny --data wikitext-2 --minutes 5"""

    model: Annotated[Positional[str], arg(metavar="MODEL", help_behavior_hint="(required without --like)")] = ""
    """A rung: a named size such as bigram, rnn, rnn-attention, gpt2-tiny, llama-tiny; or what to train further: a run,
    a model folder, hf:owner/name."""
    data: str = "python-docs"
    """A corpus by name, or a file, a folder, or - for standard input; a prepared corpus, a folder or s3://bucket/folder;
    or several, each with its share: a.txt:0.7,b/:0.3."""
    like: str | None = None
    """Repeat the run in this folder, on the same machine bit for bit, but for what else is given; MODEL is its own."""
    column: str = "text"
    """The column that holds the text, in .jsonl, .csv and .parquet files."""
    tokenizer: str = "bpe"
    """bpe, word, char, bytes, or a folder or file to load one from. What is trained further has its own."""
    vocab: int | None = None
    """Vocabulary size of a tokeniser trained here; default 4,096 for bpe, otherwise all that occur."""
    apart: bool = False
    """Keep documents that share a row from seeing each other."""
    eval_tokens: int = 20_000
    """Tokens of the validation split that an evaluation looks at; the summary at the end takes all."""
    tasks: tuple[str, ...] = ()
    """Tasks to score at every evaluation too, 1,000 examples of each, such as hellaswag."""
    prompt: str = "The"
    """What the samples begin with."""
    layers: int | None = None
    dim: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    mlp: int | None = None
    cell: Literal["tanh", "gru", "lstm"] | None = None
    """Recurrent rungs: what carries the state."""
    order: int | None = None
    """Counted rungs: the longest n-gram, 1 to 7."""
    smoothing: Literal["mle", "add-k", "kneser-ney"] | None = None
    k: float | None = None
    """Counted rungs: what add-k adds."""

    def __post_init__(self) -> None:
        if not self.model and not self.like:
            raise UserError("train needs a model, as in hornbook train llama-tiny, or --like RUN to repeat a run")
        super().__post_init__()
        above_zero(self, "eval_tokens", "layers", "dim", "heads", "vocab")
        zero_or_more(self, "kv_heads", "mlp", "k")


MODEL_FIELDS = ("context", "layers", "dim", "heads", "kv_heads", "mlp", "dropout", "cell", "order", "smoothing", "k")
"""Fields of Train that change the named size; None leaves it."""
