"""Where commands find things: the instance's home, the running service, credentials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from api.client import Credentials, PlacetClient
from api.settings import Settings

SERVICE_FILE = "service.json"

Home = Annotated[Path | None, typer.Option(help="Directory of the instance (PLACET_HOME; otherwise ./.placet).")]
Url = Annotated[str, typer.Option(help="Address of the service; by default the one that serves this home.")]
KeyFile = Annotated[Path, typer.Option("--key", help="Credentials: client id and private key.", dir_okay=False)]


def settings_for(home: Path | None) -> Settings:
    """Settings from the environment, with the home of the command line."""
    settings = Settings()
    return settings if home is None else Settings(**{**settings.model_dump(), "home": home})


def write_service_file(settings: Settings, ready: dict[str, object]) -> None:
    """Leave word where the service listens."""
    (settings.home / SERVICE_FILE).write_text(json.dumps(ready))


def service_url(home: Path | None, url: str) -> str:
    """The address asked for, the one that serves this home, or the one in the settings."""
    if url:
        return url
    settings = settings_for(home)
    try:
        return str(json.loads((settings.home / SERVICE_FILE).read_text())["url"])
    except (OSError, ValueError, KeyError):
        return settings.base_url


def client_for(home: Path | None, url: str, key: Path | None) -> PlacetClient:
    """A client for the service, as whoever the key file says."""
    return PlacetClient(service_url(home, url), Credentials.load(key) if key is not None else None)


def operator_client(home: Path | None, url: str) -> PlacetClient:
    """A client for the service, as the local operator of this home."""
    return client_for(home, url, settings_for(home).operator_key_path)
