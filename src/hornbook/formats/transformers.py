"""The rungs that only we have, at home in Hugging Face's transformers: importing this file registers them there.

After it, `AutoConfig`, `AutoModelForCausalLM`, `pipeline` and `Trainer` take a run of any rung. GPT-2, OPT, Llama and
BERT need nothing, transformers has them. Every other family (its model type begins with `hornbook_`) gets a config
class and a model class made from its own tables `HF` and `CONFIG`, by the names in `HF["architectures"]`; so a new
family needs no line here. The model class holds ours as `model`, so its tensors are ours behind `model.`, which is how
such a family's `WEIGHTS` has to name them.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hornbook import models
from hornbook.errors import UserError, missing_extra
from hornbook.formats.huggingface import COMMON, from_hf_config, names
from hornbook.layers.attention import mixing_weights
from hornbook.layers.initialise import initialise
from hornbook.layers.model import Cache, LanguageModel

try:
    import transformers
    from transformers.cache_utils import Cache as ForeignCache
    from transformers.modeling_outputs import CausalLMOutputWithPast
except ImportError:
    raise missing_extra("transformers", "transformers", "hornbook.formats.transformers") from None

OURS = "hornbook_"
"""What the model types of families that transformers does not know begin with."""
FILLED = "_is_hf_initialized"
"""The mark that transformers puts on modules and parameters which need no first values any more."""


class HornbookConfig(transformers.PreTrainedConfig):
    """The config.json of one of our families. A subclass lists its keys; their defaults are those of its first size."""

    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]


class History(ForeignCache):
    """The cache of any rung as `generate` carries it around: grows as needed, reorders its rows for beam search.

    It keeps all tokens. When our cache is full, one of twice the length takes over and reads them anew.
    """

    is_croppable = False

    def __init__(self, tokens: Tensor) -> None:
        """`tokens` (B,0): nothing read yet."""
        super().__init__(layers=[])
        self.tokens, self.segments = tokens, tokens
        self.cache: Cache | None = None
        self.length = 0

    def read(self, model: LanguageModel, tokens: Tensor, segments: Tensor) -> Tensor:
        """The hidden states (B,T,D) of tokens (B,T) that follow what was read; segments (B,T) is 0 at padding."""
        self.tokens = torch.cat([self.tokens, tokens], dim=1)
        self.segments = torch.cat([self.segments, segments], dim=1)
        width = tokens.shape[1]
        if self.cache is None or self.get_seq_length() > self.length:
            self.length = max(self.get_seq_length(), 2 * self.length, model.config.context)
            self.cache = model.make_cache(len(tokens), self.length)
            tokens, segments = self.tokens, self.segments
        return model.hidden(tokens, self.cache, None if bool(segments.all()) else segments)[:, -width:]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns read, padding included: what transformers measures attention masks by."""
        return self.tokens.shape[1]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes the old row beam_idx[i]."""
        self.tokens, self.segments = self.tokens[beam_idx], self.segments[beam_idx]
        if self.cache is not None:
            self.cache.select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.reorder_cache(torch.arange(len(self.tokens), device=self.tokens.device).repeat_interleave(repeats))

    def reset(self) -> None:
        self.__init__(self.tokens[:, :0])  # type: ignore[misc]


class HornbookForCausalLM(transformers.PreTrainedModel, transformers.GenerationMixin):
    """One of our models in the form that transformers expects."""

    config: Any
    base_model_prefix = "model"
    _input_embed_layer = "embedding"
    _is_stateful = True  # a recurrent state cannot be cut back to a shorter text: no assisted generation
    _keys_to_ignore_on_load_missing: Any = ("^anchor$",)
    _keys_to_ignore_on_save: Any = ("anchor",)

    def __init__(self, config: HornbookConfig) -> None:
        """A fresh model with our initialisation. Raises UserError for a config without a vocabulary."""
        super().__init__(config)
        if not config.vocab_size:
            raise UserError(f"a {config.model_type} config needs vocab_size=..., the number of the tokeniser's ids")
        self.model = models.build(from_hf_config(config.to_dict()))
        self.model.apply(settled)
        if next(self.model.parameters(), None) is None:  # transformers asks a parameter for device and dtype
            self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Draw the parameters of `module` that a folder lacks; transformers has already said that they are missing."""
        own = list(module.parameters(recurse=False))
        if all(getattr(parameter, FILLED, False) for parameter in own):
            return
        loaded = [(p, p.clone()) for p in module.parameters() if getattr(p, FILLED, False)]
        if module is self:
            nn.init.zeros_(self.anchor)
        else:
            initialise(module)
        for parameter, before in loaded:
            parameter.copy_(before)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: History | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """input_ids (B,T) int64 -> logits (B,T,V), or of the last `logits_to_keep` positions.

        attention_mask (B, past + T): 0 at padding, wherever it stands. labels (B,T), -100 where none: adds the mean
        nats of label t+1 given tokens up to t. use_cache adds `past_key_values`, only when asked for; they are changed
        in place. output_attentions adds the weights (B,H,T,T) of every layer that attends ((B,H,T,S) over the tokens
        read, padding left out, with a cache); output_hidden_states adds (B,T,D), once.
        """
        asked = self.config.output_attentions if output_attentions is None else output_attentions
        segments = torch.ones_like(input_ids)
        if attention_mask is not None:
            segments = (attention_mask[:, -input_ids.shape[1] :] != 0).long()
        if use_cache and past_key_values is None:
            past_key_values = History(input_ids[:, :0])
        with mixing_weights(self.model) if asked else nullcontext(()) as weights:
            if past_key_values is not None:
                hidden = past_key_values.read(self.model, input_ids, segments)
            elif bool(segments.all()):
                hidden = self.model.hidden(input_ids)
            else:  # padding is moved behind the tokens, and back
                order = (segments == 0).long().argsort(dim=1, stable=True)
                back = order.argsort(dim=1)
                hidden = self.model.hidden(input_ids.gather(1, order), segments=segments.gather(1, order))
                hidden = hidden.gather(1, back[..., None].expand_as(hidden))
                weights = [w.gather(2, back[:, None, :, None].expand_as(w)) for w in weights]
                weights = [w.gather(3, back[:, None, None, :].expand_as(w)) for w in weights]
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else slice(None)
        logits = self.model.head(hidden[:, logits_to_keep if isinstance(logits_to_keep, Tensor) else kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values,
            hidden_states=(hidden,) if output_hidden_states else None,
            attentions=tuple(weights) or None,
        )
        return output.to_tuple() if return_dict is False else output


def settled(module: nn.Module) -> None:
    """Tell transformers that the parameters here are drawn, unless they are still to come from a file."""
    if all(parameter.device.type != "meta" for parameter in module.parameters(recurse=False)):
        setattr(module, FILLED, True)


def register(family: ModuleType) -> dict[str, type]:
    """Make the two classes of a family, make them known to transformers, and give them by name."""
    (name,), size = family.HF["architectures"], next(iter(family.SIZES.values()))
    keys = {key: getattr(size, names(ours)[0]) for key, ours in (COMMON | family.CONFIG).items()}
    keys |= {key: value for key, value in family.HF.items() if key not in ("architectures", "model_type")}
    body: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"config.json of {family.HF['model_type']}.",
        "model_type": family.HF["model_type"],
        "__annotations__": dict.fromkeys(keys, Any),
    }
    config = type(name.replace("ForCausalLM", "Config"), (HornbookConfig,), {**body, **keys})
    model = type(
        name, (HornbookForCausalLM,), {"__module__": __name__, "config_class": config, "__doc__": family.__doc__}
    )
    transformers.AutoConfig.register(family.HF["model_type"], config)
    transformers.AutoModelForCausalLM.register(config, model)
    return {config.__name__: config, name: model}


for _family in map(models.family, models.families()):
    if _family.HF["model_type"].startswith(OURS):
        globals().update(register(_family))
