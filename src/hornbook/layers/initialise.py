"""The one initialisation.

Every matrix is drawn from a normal distribution with deviation 1 / (2 sqrt(inputs)), which at GPT-2's width of 768 is
its own 0.02 (Radford et al. 2019, section 2.3); matrices that write into the residual stream (`output`, `down`) are
divided by sqrt(number of such writes), so that the stream's variance does not grow with depth. Embeddings take 0.02,
or less where the width is so large that tied logits would start spread out. Biases are 0, norms 1.

First loss: logits of deviation s around 0 cost ln V + s^2 / 2 nats. A normed hidden state has |h|^2 = D, so with an
embedding deviation e, s^2 = D e^2, at most 1/4 here: the first loss lies at most 1/8 nat above ln V.
"""

from __future__ import annotations

import math

import torch
from torch import nn

RESIDUAL = ("output", "down")


@torch.no_grad()
def initialise(model: nn.Module, residual_outputs: int = 1) -> None:
    """Draw all weights of `model` in place, from torch's global generator; on the meta device there are none."""
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            deviation = 0.5 / math.sqrt(module.in_features)
            parent, _, leaf = name.rpartition(".")
            if parent and leaf in RESIDUAL:
                deviation /= math.sqrt(residual_outputs)
            nn.init.normal_(module.weight, std=deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=min(0.02, 0.5 / math.sqrt(module.embedding_dim)))
        elif isinstance(module, nn.RNNBase):
            initialise_recurrent(module)


def initialise_recurrent(module: nn.RNNBase) -> None:
    """Orthogonal recurrent matrices (Saxe et al. 2014), zero biases, the LSTM's forget gate at 1 (Jozefowicz 2015)."""
    width = module.hidden_size
    for name, parameter in module.named_parameters():
        if "weight_hh" in name:
            for gate in parameter.split(width):
                nn.init.orthogonal_(gate)
        elif "weight" in name:
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[1]))
        else:
            nn.init.zeros_(parameter)
            if isinstance(module, nn.LSTM) and "bias_ih" in name:
                parameter[width : 2 * width] = 1.0
