"""Models of the Hugging Face Hub, through `huggingface_hub`: its login, its cache, `$HF_ENDPOINT`, its progress bars.

Only settings, tokenisers and weights are fetched, never code; safetensors where there are any, pickles otherwise.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hornbook.errors import UserError, missing_extra
from hornbook.formats.peft_base import CONFIG, OURS, PICKLED, WEIGHTS
from hornbook.formats.weights import INDEX, PICKLE, SAFETENSORS
from hornbook.progress import say

SETTINGS = ("config.json", "generation_config.json")
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    *("vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "dict.txt"),
)
SAFE_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
PICKLE_SHARD = re.compile(r"pytorch_model-\d+-of-\d+\.bin")


def download_model(repo: str, revision: str | None = None) -> Path:
    """The folder, in the Hub's cache, with the model `owner/name`; what it lacks is downloaded.

    Without a network, what is in the cache. UserError where there is no such model, or no access to it, or no room.
    """
    hub = import_hub(repo)
    with one_line(hub, repo, revision):
        try:
            info = hub.HfApi(endpoint=endpoint()).model_info(repo, revision=revision, files_metadata=True)
        except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError):
            raise
        except failures(hub):
            for name in ("config.json", CONFIG):
                if kept := cached(hub, repo, name, revision):
                    return kept.parent
            raise
        files = wanted(info)
        if not files:
            raise UserError(f"the Hub's {repo} holds no {SAFETENSORS} and no {PICKLE}: it is no model of this kind")
        announce(hub, repo, info.sha, files)
        return Path(hub.snapshot_download(repo, revision=revision, endpoint=endpoint(), allow_patterns=list(files)))


def import_hub(repo: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise missing_extra("huggingface_hub", "hub", f"downloading {repo}") from None
    return huggingface_hub


def endpoint() -> str | None:
    """The address that `$HF_ENDPOINT` states now; None for the Hub's own."""
    return os.environ.get("HF_ENDPOINT") or None


def wanted(info: Any) -> dict[str, int]:
    """Files to fetch and their sizes in bytes; none where there are no weights."""
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    weights = choose_weights(sizes)
    chosen = [*SETTINGS, *TOKENIZER, *weights] if weights else []
    return {name: sizes[name] for name in chosen if name in sizes}


def choose_weights(names: Iterable[str]) -> list[str]:
    """The files of weights among `names`: an adapter's alone, else whole before sharded, safetensors before pickles."""
    names = set(names)
    for adapter in (WEIGHTS, PICKLED):
        if {adapter, CONFIG} <= names:
            return [CONFIG, OURS, adapter]
    for whole, shard in ((SAFETENSORS, SAFE_SHARD), (PICKLE, PICKLE_SHARD)):
        if whole in names:
            return [whole]
        if f"{whole}{INDEX}" in names:
            return [f"{whole}{INDEX}", *sorted(name for name in names if shard.fullmatch(name))]
    return []


def cached(hub: Any, repo: str, name: str, revision: str | None) -> Path | None:
    """A file in the Hub's cache; None where it is not there."""
    found = hub.try_to_load_from_cache(repo, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def announce(hub: Any, repo: str, revision: str, files: dict[str, int]) -> None:
    """Say how much is still to come; UserError where the disk has no room for it."""
    missing = {name: size for name, size in files.items() if not cached(hub, repo, name, revision)}
    coming = sum(missing.values())
    if not coming:
        return
    say(f"{repo}: downloading {len(missing)} files, {coming / 1e6:,.1f} MB")
    cache = Path(hub.constants.HF_HUB_CACHE).expanduser()
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if (free := shutil.disk_usage(place).free) < coming:
        raise UserError(f"{repo} takes {coming / 1e9:,.1f} GB; {cache} (HF_HOME) has {free / 1e9:,.1f} GB free")


def failures(hub: Any) -> tuple[type[Exception], ...]:
    """What a request raises that came to nothing, by refusal or without a network."""
    base = hub.errors.HfHubHTTPError.__mro__[1]  # the HTTP library's own, which differs between versions
    return (base, hub.errors.EntryNotFoundError, OSError)


@contextmanager
def one_line(hub: Any, repo: str, revision: str | None) -> Iterator[None]:
    """Whatever goes wrong with the Hub becomes a line that says what to do."""
    errors, where = hub.errors, endpoint() or hub.constants.ENDPOINT
    login = "log in with `hf auth login`, or set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError:
        raise UserError(f"{repo} is gated: accept its terms at {where}/{repo}, then {login}") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{where} has no model {repo}, or it is private: check the name, or {login}") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{repo} has no revision '{revision}': see {where}/{repo}/tree/main for what it has") from None
    except errors.HFValidationError as error:
        raise UserError(f"'{repo}' is no name of a model on the Hub: {str(error).splitlines()[0]}") from None
    except failures(hub) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"cannot download {repo} from {where} ({told}): try again, or copy its folder here and give its path"
        ) from None
