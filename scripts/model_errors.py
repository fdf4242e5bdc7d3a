"""What goes wrong when a model is fetched and made, in one line that says what to do."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from timm.models import parse_model_name
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

# The HTTP library of huggingface_hub writes a line for each request.
for _library in ("httpx", "httpx2"):
    logging.getLogger(_library).setLevel(logging.WARNING)


@contextmanager
def model_errors(model: str, checkpoint: str | Path | None = None) -> Iterator[None]:
    """Turn the errors of all the libraries that take part into two kinds.

    Args:
        model: As :func:`timm.create_model` takes it.
        checkpoint: The file of its weights, if they are not its own.

    Raises:
        ValueError: The files are damaged or another model's, or do not describe a model; or it
            cannot be made with these arguments.
        OSError: A file cannot be read, or a repository cannot be reached.
    """
    try:
        yield
    except GatedRepoError as error:
        raise OSError(
            f"{model}: its owner lets users in one by one. Ask on the repository's page, and log "
            "in by `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise OSError(
            f"{model}: there is no {error.response.url}. The repository does not exist, or is "
            "private: then log in by `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise OSError(f"{model}: no such revision of the repository, {_line(error)}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:  # before its base, the next
        raise OSError(
            f"{model}: the files are not in the cache, and the Hub does not answer, "
            f"{_line(error.__cause__ or error)}"
        ) from error
    except EntryNotFoundError as error:
        raise OSError(f"{model}: the repository lacks a file, {_line(error)}") from error
    except HfHubHTTPError as error:
        raise OSError(f"{model} cannot be fetched: {_line(error)}") from error
    except (SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{model}: {checkpoint or 'its file of weights'} is damaged or unsafe, {_line(error)}"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{model}: its config.json is no JSON, {error}") from error
    except ValueError as error:  # of this package, which does not know the file
        if not checkpoint or str(checkpoint) in str(error):
            raise
        raise ValueError(
            f"{model} cannot be made with the weights of {checkpoint}: {error}"
        ) from error
    except (AssertionError, RuntimeError, TypeError) as error:  # of weights, sizes, arguments
        where = f" with the weights of {checkpoint}" if checkpoint else ""
        raise ValueError(f"{model} cannot be made{where}: {error}") from error


def check_described(model: str) -> None:
    """See that a folder or repository holds the description of a model that timm can make.

    Args:
        model: As :func:`timm.create_model` takes it; plain names of timm pass.

    Raises:
        ValueError: It does not.
        OSError: It cannot be read or reached.
    """
    source, name = parse_model_name(model)
    if source is None:
        return
    read = load_model_config_from_hf if source == "hf-hub" else load_model_config_from_path
    with model_errors(model):
        try:
            architecture = read(name)[1]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{model}: its config.json does not describe a timm model ({error!r})"
            ) from error
        if not timm.is_model(architecture):
            raise ValueError(
                f"{model}: its architecture, {architecture}, is unknown to timm {timm.__version__} "
                "and to rga_timm: a newer version may know it"
            )


def _line(error: BaseException) -> str:
    """An error's message, on one line."""
    return " ".join(str(error).split())
