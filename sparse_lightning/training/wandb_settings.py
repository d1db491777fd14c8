"""What W&B is asked for, and what becomes of a run that W&B fails: never a failure.

Settings that W&B cannot take are refused before training. Whatever goes wrong later, such as no
network, a key that is not valid, a full disk, is a warning: the run is logged offline or, where
that fails as well, not to W&B.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import netrc
import os
import ssl
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import wandb
from pydantic import ValidationError

from sparse_lightning.errors import SettingError

MODES = ("online", "offline", "disabled")
# Names of these that W&B has besides.
OTHER_MODES = ("shared", "dryrun", "run")
# What is tried where a mode fails.
HUMBLER = {"online": "offline", "run": "offline", "shared": "offline"}
# Seconds until a server answers at all.
ANSWER = 5.0
# Seconds until a server has begun a run, and until it has taken, at the end of a run, what it
# lacks. Quiet, because W&B's long summary would hide our table and paths at the end of a run.
CHOSEN = {"init_timeout": 10.0, "finish_timeout": 300.0, "quiet": True}
# Characters that W&B's server has room for.
ROOM = {"group": 128, "name": 128, "job_type": 64}
ROOM_IN_TAG = 64

Begun = TypeVar("Begun")


def require_mode(setting: str, mode: Any) -> str:
    """The mode, unless W&B has no such one."""
    if mode not in (*MODES, *OTHER_MODES):
        raise SettingError(
            f"{setting}={mode} must be one of {', '.join(MODES)}; or leave W&B out: logger=csv."
        )
    return mode


def environment() -> wandb.Settings:
    """W&B's settings, with the server that ``wandb login --host`` left, and the environment's.

    Raises:
        SettingError: a variable of the environment has a value that W&B does not take.
    """
    if "WANDB_MODE" in os.environ:
        require_mode("WANDB_MODE", os.environ["WANDB_MODE"])
    settings = wandb.Settings()
    file = configparser.ConfigParser(interpolation=None)
    folder = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser()
    # W&B itself does not heed a file that is damaged.
    with contextlib.suppress(configparser.Error, ValueError):
        file.read(folder / "settings")
        settings.base_url = file.get("default", "base_url", fallback=settings.base_url)
    try:
        settings.update_from_env_vars(dict(os.environ))
    except (ValidationError, wandb.Error, ValueError) as error:
        raise SettingError(
            f"W&B does not take a value of the environment: {_told(error, 'WANDB_')}. Change or "
            "unset that variable, or leave W&B out: logger=csv."
        ) from error
    return settings


def require_settings(project: str | None, mode: str | None) -> None:
    """Raise `SettingError` for what W&B would refuse once training is about to begin."""
    if mode is not None:
        require_mode("logger.wandb.mode", mode)
    environment()
    try:
        wandb.Settings(project=project)
    except (ValidationError, wandb.Error, ValueError) as error:
        raise SettingError(
            f"logger.wandb.project={project} is none that W&B takes: {_told(error, '')}."
        ) from error


def has_api_key() -> bool:
    """Whether W&B has a key to go online with, where W&B looks: nobody is asked for it.

    A file that identifies the user (``WANDB_IDENTITY_TOKEN_FILE``) does as well.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = environment().base_url
    path = os.environ.get("NETRC", Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(urlsplit(server).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def arguments(**given: Any) -> dict[str, Any]:
    """What ``wandb.init`` is given: names and tags cut to W&B's room, W&B patient and quiet.

    A variable of the environment, such as ``WANDB_QUIET=false``, wins over what is chosen here.
    """
    if given.get("tags") is not None:
        given["tags"] = as_tags(given["tags"])
    for name, room in ROOM.items():
        if isinstance(given.get(name), str):
            given[name] = cut(given[name], room)
    if "settings" not in given:
        known = wandb.Settings.model_fields
        given["settings"] = wandb.Settings(
            **{
                name: value
                for name, value in CHOSEN.items()
                if name in known and f"WANDB_{name.upper()}" not in os.environ
            }
        )
    return given


def as_tags(texts: Iterable[Any]) -> list[str]:
    """Tags as W&B takes them: none empty, none too long, none twice."""
    tags = (cut(str(text), ROOM_IN_TAG) for text in texts)
    return list(dict.fromkeys(tag for tag in tags if tag))


def cut(text: str, room: int) -> str:
    """The text or, where it is too long, its beginning and eight digits that stand for it."""
    if len(text) <= room:
        return text
    return f"{text[: room - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def begin(init: Callable[[str], Begun], mode: str | None) -> Begun:
    """What ``init`` makes in a mode or, where W&B fails, in a humbler one, with a warning.

    Args:
        init: given a mode, calls ``wandb.init``.
        mode: of the settings; None for online.
    """
    mode = mode or "online"
    if mode in HUMBLER and (obstacle := _obstacle()):
        warn(f"W&B cannot go {mode}: {obstacle}. This run is logged offline.")
        mode = HUMBLER[mode]
    while mode != "disabled":
        try:
            return init(mode)
        except Exception as error:
            humbler = HUMBLER.get(mode, "disabled")
            meanwhile = "not logged to W&B" if humbler == "disabled" else f"logged {humbler}"
            warn(f"W&B fails {mode} ({_told(error, '')}). This run is {meanwhile}.")
            mode = humbler
            # Its own process still has the run of the first attempt.
            with contextlib.suppress(Exception):
                wandb.teardown()
    return init(mode)


def _obstacle() -> str | None:
    """What keeps W&B from going online, as far as a moment can tell; None for nothing."""
    if not has_api_key():
        return "it has no API key"
    settings = environment()
    answer: list[str | None] = [f"{settings.base_url} has not answered for {ANSWER:g} s"]

    def ask() -> None:
        proxies = {"http": settings.http_proxy, "https": settings.https_proxy}
        own = {scheme: proxy for scheme, proxy in proxies.items() if proxy}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(own or None))
        try:
            opener.open(settings.base_url, timeout=ANSWER).close()
        except urllib.error.HTTPError:
            pass  # That is an answer, and so is a certificate in doubt.
        except OSError as error:
            reason = getattr(error, "reason", error)
            if not isinstance(reason, ssl.SSLError):
                answer[0] = f"{settings.base_url} cannot be reached ({reason})"
                return
        answer[0] = None

    # A name server that keeps silent heeds no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER + 1)
    return answer[0]


def warn(text: str) -> None:
    """A warning that names no line of code, which would not help."""
    warnings.warn(text, stacklevel=3)


def _told(error: Exception, prefix: str) -> str:
    """The first line of what W&B says; of pydantic's several, what is wrong with which field."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        name = prefix + "_".join(str(part) for part in first["loc"]).upper()
        return f"{name if prefix else name.lower()}={first['input']}: {first['msg']}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
