"""Published weights give published numbers; only where the Hub can be reached."""

from __future__ import annotations

import urllib.request

import pytest
import torch

import hornbook
from hornbook.layers.model import LanguageModel


@pytest.fixture(scope="module")
def gpt2() -> LanguageModel:
    try:
        urllib.request.urlopen("https://huggingface.co/openai-community/gpt2/resolve/main/config.json", timeout=5)
    except OSError as error:
        pytest.skip(f"the Hub cannot be reached ({error})")
    return hornbook.load("gpt2")


@pytest.mark.slow
def test_gpt2s_position_table_starts_as_published(gpt2: LanguageModel) -> None:
    found = gpt2.state_dict()["positions.weight"][0, :4]
    torch.testing.assert_close(found, torch.tensor([-0.0188, -0.1974, 0.0040, 0.0113]), rtol=0, atol=5e-5)


@pytest.mark.slow
def test_gpt2_has_as_many_parameters_as_it_is_known_for(gpt2: LanguageModel) -> None:
    assert gpt2.parameter_count() == 124_439_808
