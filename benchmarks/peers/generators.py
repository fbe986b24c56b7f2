"""The peers' generation, each as its user has it: python -m peers.generators NAME SOURCE prints one line of JSON.

transformers          `generate` in float32, in which most weights are published, as it comes
transformers-bf16     the same in bfloat16
transformers-static   bfloat16 with a static cache, its forward compiled
llama, llama-no-amx   llama.cpp through llama-cpp-python's low-level calls, one pass a token for all rows; the second
                      one without the AMX tiles of an Intel processor
quantize-Q8_0, -Q4_0  no generation: SOURCE rewritten by llama.cpp's own quantiser, beside it
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

from peers.generating import NEW, PROMPT, answer, measured, options, prompts

FILE_TYPES = {"Q4_0": 2, "Q8_0": 7}
"""llama.cpp's numbers."""
SLOTS = 256
"""Of a row's cache: what holds prompt and answer, in the whole 256 that llama.cpp gives out."""

SMALL = 6144
"""Bytes that hold the state of AVX-512 and not the 8 KiB of AMX's tiles."""


def transformers(given: argparse.Namespace) -> None:
    import torch
    from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

    class Mark(StoppingCriteria):
        """Notes the first call, which comes with the first token; never stops."""

        def __init__(self, mark: Callable[[int], None]) -> None:
            self.mark: Callable[[int], None] | None = mark

        def __call__(self, ids: torch.Tensor, scores: torch.Tensor, **more: Any) -> torch.Tensor:
            if self.mark is not None:
                self.mark(len(ids))
                self.mark = None
            return torch.zeros(len(ids), dtype=torch.bool)

    start = time.perf_counter()
    dtype = torch.float32 if given.name == "transformers" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(given.source, dtype=dtype).eval()
    load_seconds = time.perf_counter() - start
    ids = torch.tensor(prompts(given.rows, model.config.vocab_size))
    with torch.inference_mode():
        logits = model(ids[:1]).logits[0, -1].tolist()
    chosen: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    if given.name == "transformers-static":
        model.forward = torch.compile(model.forward, dynamic=False)
        chosen["cache_implementation"] = "static"

    def generate(mark: Callable[[int], None]) -> list[list[int]]:
        criteria = StoppingCriteriaList([Mark(mark)])
        found = model.generate(ids, attention_mask=torch.ones_like(ids), stopping_criteria=criteria, **chosen)
        return found[:, PROMPT:].tolist()

    times = measured(generate, given.rows, given.repeats)
    looked_up = () if model.config.tie_word_embeddings else (model.get_input_embeddings().weight,)
    read = [p for name, p in model.named_parameters() if ".wpe." not in name and all(p is not t for t in looked_up)]
    answer(times, load_seconds, logits, weights=sum(p.nbytes for p in read), threads=torch.get_num_threads())


def llama(given: argparse.Namespace) -> None:
    import llama_cpp
    import numpy as np

    if given.name == "llama-no-amx":
        refuse_tiles()
    llama_cpp.llama_backend_init()
    start = time.perf_counter()
    loading = llama_cpp.llama_model_default_params()
    loading.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(given.source.encode(), loading)
    settings = llama_cpp.llama_context_default_params()
    settings.n_seq_max, settings.n_ctx = given.rows, given.rows * SLOTS
    settings.n_batch = settings.n_ubatch = given.rows * PROMPT
    settings.n_threads = settings.n_threads_batch = given.threads
    context = llama_cpp.llama_init_from_model(model, settings)
    load_seconds = time.perf_counter() - start
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    texts, batch = prompts(given.rows, vocab), llama_cpp.llama_batch_init(given.rows * PROMPT, 0, 1)
    first: list[float] = []

    def logits(place: int) -> np.ndarray:
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, place), (vocab,))

    def forward(rows: list[list[int]], position: int) -> list[int]:
        """Read some tokens of each row, all from one position on; the next token of each."""
        places, count = [], 0
        for row, tokens in enumerate(rows):
            for token, at in zip(tokens, range(position, position + len(tokens)), strict=True):
                batch.token[count], batch.pos[count] = token, at
                batch.n_seq_id[count], batch.seq_id[count][0], batch.logits[count] = 1, row, 0
                count += 1
            batch.logits[count - 1] = 1
            places.append(count - 1)
        batch.n_tokens = count
        if code := llama_cpp.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode gives {code}")
        return [int(logits(place).argmax()) for place in places]

    def generate(mark: Callable[[int], None]) -> list[list[int]]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        found = [[token] for token in forward(texts, 0)]
        mark(len(found))
        if not first:
            first.extend(logits(PROMPT - 1).tolist())
        for step in range(NEW - 1):
            for row, token in zip(found, forward([row[-1:] for row in found], PROMPT + step), strict=True):
                row.append(token)
        return found

    times = measured(generate, given.rows, given.repeats)
    answer(times, load_seconds, first, threads=given.threads)


def refuse_tiles() -> None:
    """Have Linux refuse AMX to this process, as it does where a stack for signals is too small for its state.

    llama.cpp then takes its AVX kernels. Built by GCC 12, its AMX kernels die.
    """

    class Stack(ctypes.Structure):
        _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    refuse_tiles.held = memory = ctypes.create_string_buffer(SMALL)  # type: ignore[attr-defined]
    small = Stack(ctypes.addressof(memory), 0, SMALL)
    if ctypes.CDLL(None, use_errno=True).sigaltstack(ctypes.byref(small), None):
        raise OSError(ctypes.get_errno(), "no stack for signals")


def quantize(given: argparse.Namespace) -> None:
    import llama_cpp

    kind = given.name.removeprefix("quantize-")
    target = given.source.rpartition(".")[0].rpartition("-")[0] + f"-{kind}.gguf"
    chosen = llama_cpp.llama_model_quantize_default_params()
    chosen.ftype, chosen.nthread = FILE_TYPES[kind], given.threads
    if llama_cpp.llama_model_quantize(given.source.encode(), f"{target}.part".encode(), ctypes.byref(chosen)):
        raise SystemExit(f"llama.cpp could not quantise {given.source}")
    os.replace(f"{target}.part", target)
    print("{}")


GENERATORS: dict[str, Callable[[argparse.Namespace], None]] = {
    **dict.fromkeys(("transformers", "transformers-bf16", "transformers-static"), transformers),
    **dict.fromkeys(("llama", "llama-no-amx"), llama),
    **{f"quantize-{kind}": quantize for kind in FILE_TYPES},
}


if __name__ == "__main__":
    asked = options(list(GENERATORS))
    GENERATORS[asked.name](asked)
