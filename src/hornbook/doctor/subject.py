"""Who is examined: a model with its tokeniser, tokens to try it on, fresh and small copies of it, and its files."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hornbook import checkpoint, models
from hornbook.adapt.quantization import dequantize, weights_only
from hornbook.config import ModelConfig
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.doctor.finding import NotApplicable
from hornbook.doctor.quiet import quiet_transformers
from hornbook.doctor.sample_text import TEXT
from hornbook.errors import UserError
from hornbook.layers.attention import mixing
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizers import Tokenizer
from hornbook.training.objective import Objective

SMALL = 500_000
"""Parameters up to which a model learns a batch by heart, itself, in a second or two."""
FRESH = 20_000_000
"""Parameters up to which a model is drawn anew in its own size."""
STORED = 4 * 2**30
"""Bytes up to which a model is written to a temporary folder."""


class Subject:
    """A model in evaluation mode, and what its checks share."""

    stores_tokenizer = True
    """Whether `write` stores the tokeniser too."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer | None, ours: bool, scratch: Path) -> None:
        """`ours`: the model was trained here, so that what is tolerated in imports is an error. `scratch` is an empty
        folder to write into."""
        self.model, self.tokenizer, self.ours, self.scratch = model, tokenizer, ours, scratch
        self.config = model.config
        self.width = min(24, model.config.context)
        """Tokens in a row of most checks."""
        self.device = model.device

    @cached_property
    def text_ids(self) -> list[int]:
        """The sample text as the tokeniser cuts it; empty where that says nothing: ids that the model lacks, or nearly
        all of them the same one."""
        ids = self.tokenizer.encode(TEXT) if self.tokenizer else []
        return ids if len(set(ids)) >= 16 and max(ids) < self.config.vocab else []

    def rows(self, count: int, width: int) -> Tensor:
        """Tokens (count, width): pieces of the sample text, or, where that says nothing, ids drawn evenly."""
        if not self.text_ids:
            generator = torch.Generator().manual_seed(0)
            return torch.randint(self.config.vocab, (count, width), generator=generator).to(self.device)
        starts = [i * len(self.text_ids) // count for i in range(count)]
        endless = [itertools.islice(itertools.cycle(self.text_ids), at, at + width) for at in starts]
        return torch.tensor([list(row) for row in endless], device=self.device)

    def examples(self, count: int, width: int) -> Batch:
        """What training would show: each next token is a target, or, for an encoder, every third token, hidden."""
        x = self.rows(count, width + 1)
        if self.model.causal:
            return Batch(x[:, :-1], x[:, 1:])
        hidden = torch.arange(width, device=x.device) % 3 == 1
        return Batch(torch.where(hidden, self.hider, x[:, :-1]), torch.where(hidden, x[:, :-1], NO_TARGET))

    @property
    def filler(self) -> int:
        """The id that fills up rows."""
        return self.config.pad or 0

    @property
    def hider(self) -> int:
        """The id that hides a token from an encoder."""
        return self.filler if self.tokenizer is None or self.tokenizer.mask is None else self.tokenizer.mask

    @property
    def leaning(self) -> float:
        """The largest logit by which a fresh model can prefer the token that it has just read: with a tied head
        |e| |h| = D e, with e the deviation of the embeddings (`layers/initialise.py`); 0 without."""
        width = self.model.unembedding[0].shape[1] if self.model.tied else 0
        return width * min(0.02, 0.5 / max(width, 1) ** 0.5)

    @property
    def layers(self) -> int:
        """Blocks, or recurrent layers; 1 for what has none."""
        return max(1, int(getattr(self.config, "layers", 1)))

    @property
    def place_table(self) -> bool:
        """Whether positions come from a table, which ends."""
        return getattr(self.model, "positions", None) is not None

    @property
    def heads(self) -> int | None:
        """Heads of each attention; None for what has none."""
        return getattr(self.config.resolved(), "heads", None)

    def objective(self, model: LanguageModel) -> nn.Module:
        """What training minimises: tokens, targets, segments (B,T) -> (sum of nats, number of targets)."""
        return Objective(model)

    def fresh(self) -> tuple[LanguageModel, str]:
        """A newly drawn model of the same kind, in training mode without dropout; words that say if it is smaller."""
        if self.model.parameter_count() <= FRESH:
            return self.drawn(self.config), ""
        small = reduced(self.config)
        return self.drawn(small), self.told(small)

    def pupil(self) -> tuple[LanguageModel, str]:
        """A model to train, as `fresh`: a copy of this one where it is small, else a fresh one made small."""
        if self.model.parameter_count() > SMALL:
            small = reduced(self.config)
            return self.drawn(small), self.told(small)
        drawn = self.drawn(self.config)
        drawn.load_state_dict(self.in_full().state_dict())
        return drawn, ""

    def in_full(self) -> LanguageModel:
        """The model without quantisation, in the numbers that it stands for; itself, where there is none."""
        return self.model if self.model.quantization is None else dequantize(copy.deepcopy(self.model))

    def drawn(self, config: ModelConfig) -> LanguageModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made: Any = type(self.model)
            return without_dropout(made(config)).to(self.device)

    def blank(self) -> LanguageModel:
        """A model of the same config that has shapes and no numbers."""
        made: Any = type(self.model)
        with torch.device("meta"):
            return made(self.config)

    def told(self, config: ModelConfig) -> str:
        dim, layers = getattr(config, "dim", 0), getattr(config, "layers", 0)
        return f" (a fresh, smaller copy: {layers} layers of {dim}, {config.vocab} ids)"

    @cached_property
    def folder(self) -> Path:
        """The model as a Hugging Face folder, written once."""
        self.check_room(sum(tensor.nbytes for tensor in self.model.state_dict().values()))
        self.write(self.scratch / "model")
        return self.scratch / "model"

    @cached_property
    def folder_in_full(self) -> Path:
        """The same, without quantisation."""
        if self.model.quantization is None:
            return self.folder
        self.check_room(4 * self.model.parameter_count())
        checkpoint.save_model(self.scratch / "full", self.in_full(), self.tokenizer)
        return self.scratch / "full"

    def check_room(self, size: int) -> None:
        if size > min(STORED, shutil.disk_usage(self.scratch).free // 2):
            raise NotApplicable(f"the model has {size / 2**30:.1f} GiB, too much for a temporary folder")

    def write(self, folder: Path) -> None:
        checkpoint.save_model(folder, self.model, self.tokenizer)

    def read(self, folder: Path) -> LanguageModel:
        """The model that `write` stored."""
        return weights_only(checkpoint.load(folder, str(self.device)))

    def counterpart(self, x: Tensor) -> tuple[Tensor, str]:
        """The logits for tokens x (B,T) of the same weights in Hugging Face's class, and that class's name."""
        name = getattr(models.family(self.config.family), "HF", {}).get("architectures", [""])[0]
        with quiet_transformers() as transformers:
            if (theirs := getattr(transformers, name, None)) is None:
                raise NotApplicable("a family that transformers does not have")
            model, told = theirs.from_pretrained(
                self.folder_in_full,
                attn_implementation="eager",
                dtype=torch.float32,
                output_loading_info=True,
                local_files_only=True,
            )
        if strange := sorted(str(tensor) for tensors in told.values() for tensor in tensors):
            raise UserError(f"transformers misses tensors in what we store, or does not know them: {strange[:3]}")
        return model.eval().to(self.device)(x).logits, f"transformers' {name}"

    def attention_sums(self) -> list[Tensor]:
        """For every attention of a pass over a few tokens: what the weights of each query add up to, any shape."""
        with mixing(self.model, lambda key, value: torch.ones_like(value)) as sums:
            self.model(self.rows(2, self.width))
        return sums


def reduced(config: ModelConfig) -> ModelConfig:
    """The same parts in a size that learns in seconds: 2 layers of 64, 4 heads of 16, 512 ids, 64 positions."""
    whole = config.resolved()
    fields = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
    changes = {"dim": 64, "layers": 2, "encoder_layers": 2, "mlp": 128, "heads": 4, "head_dim": 16, "dropout": 0.0}
    changes |= {"kv_heads": {fields.get("heads"): 4, 1: 1}.get(fields.get("kv_heads"), 2)}
    changes |= {"vocab": min(512, config.vocab), "context": min(64, config.context), "bos": 0, "eos": 0, "pad": 1}
    return config.replace(**{name: value for name, value in changes.items() if name in fields})


def without_dropout(model: LanguageModel) -> LanguageModel:
    """The model in training mode, with every probability of dropout 0, so that passes can be repeated."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    return model.train()
