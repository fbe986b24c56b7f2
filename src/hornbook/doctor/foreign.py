"""A Hugging Face folder judged as transformers runs it: an `AutoModelForCausalLM` behind our contract.

No code that the folder brings along is executed, and weights are read from safetensors only.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hornbook import checkpoint, machine, models
from hornbook.config import ModelConfig
from hornbook.data.batches import NO_TARGET
from hornbook.doctor.finding import NotApplicable
from hornbook.doctor.quiet import quiet_transformers
from hornbook.doctor.subject import FRESH, SMALL, Subject, without_dropout
from hornbook.errors import UserError, listing, missing_extra
from hornbook.layers.model import LanguageModel
from hornbook.small_files import read_object
from hornbook.text.tokenizers import Tokenizer


class ForeignCache:
    """Their `past_key_values`, behind our contract as far as the checks need it."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.past: Any = None
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)

    def select(self, rows: Tensor) -> None:
        raise NotApplicable("transformers reorders its caches itself")

    def rewind(self, lengths: Tensor) -> None:
        raise NotApplicable("transformers cuts its caches itself")

    def join(self, other: ForeignCache) -> None:
        raise NotApplicable("transformers joins its caches itself")

    def reserve(self, length: int) -> None:
        """They grow by themselves."""

    def copy(self, row: int) -> ForeignCache:
        raise NotApplicable("transformers copies its caches itself")

    @property
    def bytes(self) -> int:
        raise NotApplicable("transformers does not say")


class ForeignModel(LanguageModel):
    """Their model; `hidden` gives its logits, and the head is no more."""

    core: Any
    """A PreTrainedModel."""

    def __init__(self, core: Any) -> None:
        super().__init__()
        self.core = core
        c = core.config.get_text_config()
        bos, eos, pad = (getattr(c, f"{name}_token_id", None) for name in ("bos", "eos", "pad"))
        eos = next(iter(eos), None) if isinstance(eos, list) else eos
        context = getattr(c, "max_position_embeddings", None) or 2048
        self.config = ModelConfig(c.model_type, c.vocab_size, context, bos=bos, eos=eos, pad=pad)
        self.counted = getattr(getattr(core, "model", None), "counted", False)  # ours, in its class for transformers
        self.layers, self.heads = getattr(c, "num_hidden_layers", None), getattr(c, "num_attention_heads", None)
        self.takes = set(inspect.signature(core.forward).parameters)

    def hidden(self, tokens: Tensor, cache: Any = None, segments: Tensor | None = None) -> Tensor:
        """tokens (B,T) -> logits (B,T,V); segments (B,T) may only mark padding, with 0."""
        given: dict[str, Any] = {"use_cache": cache is not None}
        if segments is not None:
            given |= self.padded(segments)
        if cache is not None:
            given["past_key_values"] = cache.past
        found = self.core(tokens, **given)
        if cache is not None:
            cache.past = getattr(found, "past_key_values", None)
            cache.lengths = cache.lengths + tokens.shape[1]
            if cache.past is None:
                raise NotApplicable("this model gives out no past_key_values")
        return found.logits

    def padded(self, segments: Tensor) -> dict[str, Tensor]:
        """What tells them of padding, as their own `generate` does."""
        if int(segments.max()) > 1:
            raise NotApplicable("transformers' contract knows no documents that share a row")
        real = (segments != 0).long()
        places = {"position_ids": (real.cumsum(1) - 1).clamp(min=0)} if "position_ids" in self.takes else {}
        return {"attention_mask": real} | places

    def head(self, hidden: Tensor) -> Tensor:
        return hidden

    def make_cache(self, batch: int, length: int) -> ForeignCache:
        return ForeignCache(batch, next(self.parameters()).device)


class ForeignObjective(nn.Module):
    """Their own loss, which shifts the labels itself and gives a mean: (sum of nats, number of targets)."""

    def __init__(self, model: ForeignModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, segments: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first = torch.full_like(targets[:, :1], NO_TARGET)
        longer = torch.cat([tokens, tokens[:, -1:]], dim=1)  # so that the last target has a place to be shifted from
        given = {}
        if segments is not None:
            given = self.model.padded(torch.cat([segments, segments[:, -1:]], dim=1))
        count = (targets != NO_TARGET).sum()
        with quiet_transformers():
            mean = self.model.core(longer, labels=torch.cat([first, targets], dim=1), **given).loss
        return mean * count, count


class ForeignSubject(Subject):
    """Their model, its copies and its files."""

    model: ForeignModel
    stores_tokenizer = False

    def __init__(self, model: ForeignModel, source: Path, scratch: Path) -> None:
        """`source` is the folder that the model came from."""
        super().__init__(model, read_tokenizer(source), False, scratch)
        self.source = source

    def counterpart(self, x: Tensor) -> tuple[Tensor, str]:
        try:
            return checkpoint.load(self.source, str(self.device))(x), "our own model"
        except UserError as error:
            raise NotApplicable(f"not ours to compare with: {str(error).split('. Possible')[0]}") from None

    def objective(self, model: LanguageModel) -> nn.Module:
        assert isinstance(model, ForeignModel)
        return ForeignObjective(model)

    def blank(self) -> LanguageModel:
        raise NotApplicable("how many parameters its config asks for, transformers decides")

    @property
    def leaning(self) -> float:
        c = self.model.core.config
        tied = getattr(c, "tie_word_embeddings", False)
        return float(c.get_text_config().hidden_size * getattr(c, "initializer_range", 0.02)) if tied else 0.0

    def fresh(self) -> tuple[LanguageModel, str]:
        if (count := self.model.parameter_count()) > FRESH:
            raise NotApplicable(f"{count:,} parameters are too many to draw anew in seconds")
        core = self.model.core
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return without_dropout(ForeignModel(type(core)(core.config))).to(self.device), ""

    def pupil(self) -> tuple[LanguageModel, str]:
        if (count := self.model.parameter_count()) > SMALL:
            raise NotApplicable(f"{count:,} parameters are too many to train in seconds")
        return without_dropout(ForeignModel(copy.deepcopy(self.model.core))), ""

    def write(self, folder: Path) -> None:
        core = self.model.core
        with quiet_transformers():
            core.save_pretrained(folder)

    def read(self, folder: Path) -> LanguageModel:
        return read_model(folder, self.device)

    @property
    def layers(self) -> int:
        return self.model.layers or 1

    @property
    def place_table(self) -> bool:
        raise NotApplicable("what transformers does with more tokens than positions hangs on the model")

    @property
    def heads(self) -> int | None:
        return self.model.heads

    def attention_sums(self) -> list[Tensor]:
        found = self.model.core(self.rows(2, self.width), output_attentions=True, use_cache=False)
        return [weights.sum(-1) for weights in getattr(found, "attentions", None) or () if weights is not None]


def open_foreign(folder: Path, device: torch.device | str, scratch: Path) -> ForeignSubject:
    """A folder as transformers reads it. UserError for what is none, or asks for code or pickles of its own."""
    check_folder(folder)
    model = read_model(folder, machine.check_device(str(device)))
    return ForeignSubject(model, folder, scratch)


ENCODER = "is an encoder"
WRONG = {"ForSequenceClassification": "tells classes apart", "ForMaskedLM": ENCODER}
"""Endings of the names of transformers' classes that continue no text, and what those do."""


def check_folder(folder: Path) -> None:
    """UserErrors for folders that are none, and for those that want their own code to be run."""
    try:
        import transformers
    except ImportError:
        raise missing_extra("transformers", "transformers", "doctor --foreign") from None
    if not folder.is_dir():
        raise UserError(f"--foreign takes a Hugging Face folder on this machine; there is none at '{folder}'")
    stated = read_object(folder / "config.json")
    kind, classes = stated.get("model_type"), stated.get("architectures")
    names = [str(name) for name in classes] if isinstance(classes, list) else []
    told = [what for ending, what in WRONG.items() if names and all(name.endswith(ending) for name in names)]
    if kind in models.families() and not models.family(str(kind)).Model.causal:
        told.append(ENCODER)
    if told:
        raise UserError(f"'{folder}' {told[0]}, and --foreign judges models that continue texts: leave --foreign out")
    if str(kind).startswith("hornbook_"):
        import hornbook.formats.transformers  # noqa: F401 (makes our own rungs known there)
    if isinstance(kind, str) and kind in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
        return
    own = "its own code, which is never run here" if "auto_map" in stated else "another version, or nothing that exists"
    raise UserError(f"transformers {transformers.__version__} has no model type '{kind}': the folder needs {own}")


def read_model(folder: Path, device: torch.device | str) -> ForeignModel:
    """Their model in float32 and evaluation mode. UserError for whatever transformers cannot read, or would draw."""
    with quiet_transformers() as transformers:
        try:
            core, told = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises many kinds for what it cannot read
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"transformers cannot read '{folder}' as a causal model: {first}") from error
    if missing := sorted(map(str, told["missing_keys"])):
        raise UserError(
            f"the weights in '{folder}' lack {machine.number_of(len(missing), 'tensor')} of such a model, which "
            f"transformers would draw at random: {listing(missing, 3)}"
        )
    return ForeignModel(core.to(device)).eval()


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The folder's tokeniser; None where there is none that we can read."""
    try:
        return checkpoint.read_tokenizer(folder)
    except UserError:
        return None
