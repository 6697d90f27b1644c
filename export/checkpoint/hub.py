"""Whether a base that is named on the hub can be had, asked once and briefly.

transformers asks for each of a dozen files, with retries; without a network that is half a minute of silence.
"""

from __future__ import annotations

import logging
import threading
from functools import cache

from export.errors import CheckpointError

logger = logging.getLogger(__name__)

_PATIENCE = 4.0  # seconds for everything, a resolver that does not answer too


@cache
def on_hub(name: str) -> bool:
    """Whether to load ``name`` from the hub (True) or from what it left in the cache (False).

    :raises CheckpointError: if it can be had from neither.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError as error:
        raise CheckpointError(f"{name!r} is neither a folder here nor a name that the hub allows.") from error
    reason = _why_not(name)
    if reason is None:
        return True
    if cached:
        logger.warning("%s is taken from the cache: %s", name, reason)
        return False
    raise CheckpointError(
        f"no folder {name} is here, and as a hub name it cannot be had: {reason}. Give the path of a folder with "
        "config.json, or leave the base out for the packaged MiniLM."
    )


def _why_not(name: str) -> str | None:
    """What keeps the hub from giving this model; None if nothing does."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to ask the hub"
    found: list[str | None] = []

    def ask() -> None:
        try:
            HfApi().model_info(name, timeout=_PATIENCE)
        except RepositoryNotFoundError:
            found.append("the hub has no such model, or it is private and no token was given")
        except Exception as error:  # of requests, of the hub, of the system: no common base
            found.append(f"the hub cannot be reached ({type(error).__name__})")
        else:
            found.append(None)

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return found[0] if found else f"the hub did not answer in {_PATIENCE:.0f} s"
