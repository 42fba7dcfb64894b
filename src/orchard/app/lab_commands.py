"""`orchard serve` and `orchard lab`: the HTTP API, and the page that uses it."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchard.app.output import note
from orchard.units import OrchardError

if TYPE_CHECKING:
    from orchard.app.lab.guard import App

Host = Annotated[str, typer.Option("--host", help="Address to listen on; other than loopback needs a token.", metavar="ADDRESS")]
Port = Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.", metavar="N", min=0, max=65535)]
Models = Annotated[Path | None, typer.Option("--models", help="Folder to pick model files from.", metavar="DIR")]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder of explorations.", metavar="DIR")]
Token = Annotated[str | None, typer.Option("--token", help="What the API asks for; made up where one is needed.", metavar="TEXT")]
Upload = Annotated[int, typer.Option("--max-upload", help="Largest upload in MiB.", metavar="N", min=1, max=65536)]
AllowHost = Annotated[list[str] | None, typer.Option("--allow-host", help="Another name the server answers to.", metavar="NAME")]
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
LEAST_TOKEN = 16


def serve(
    host: Host = "127.0.0.1", port: Port = 8080, models: Models = None, runs: RunsFolder = Path("orchard-runs"),
    token: Token = None, max_upload: Upload = 512, allow_host: AllowHost = None,
) -> None:  # fmt: skip
    """The HTTP API alone (docs/api.md)."""
    _run(host, port, models, runs, token, max_upload, allow_host or [], page=False, browser=False)


def lab(
    host: Host = "127.0.0.1", port: Port = 8080, models: Models = None, runs: RunsFolder = Path("orchard-runs"),
    token: Token = None, max_upload: Upload = 512, allow_host: AllowHost = None,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in a browser.")] = False,
) -> None:  # fmt: skip
    """The SoC Lab: a page to turn knobs and watch (docs/lab.md)."""
    _run(host, port, models, runs, token, max_upload, allow_host or [], page=True, browser=browser)


def _run(
    host: str, port: int, models: Path | None, runs: Path, token: str | None, most_mib: int, names: list[str], *,
    page: bool, browser: bool,
) -> None:  # fmt: skip
    if models is not None and not models.is_dir():
        raise OrchardError(f"--models {models}: no such folder")
    if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise OrchardError(f"--token: expected at least {LEAST_TOKEN} printable characters without spaces")
    open_to_others = not _is_loopback(host)
    token = token or (secrets.token_urlsafe(24) if open_to_others else None)
    listening = _bound(host, port)
    app = _app(host, models, runs, token, most_mib, names, page=page)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/" + (f"#token={token}" if token else "")
    note(f"{'SoC Lab' if page else 'API'} at {url if page or token else url + 'api/v1/openapi.json'} (Ctrl-C ends it)")
    if browser:
        import webbrowser

        webbrowser.open(url)
    _serve(app, listening)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sends at once only where it says TCP
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        raise OrchardError(f"--host {host} --port {port}: cannot listen there ({error.strerror}); try --port 0") from None
    return found


def _app(
    host: str, models: Path | None, runs: Path, token: str | None, most_mib: int, names: list[str], *, page: bool
) -> App:
    try:
        from orchard.app.lab.server import Settings, make_app
    except ImportError:
        raise OrchardError("the server needs FastAPI and uvicorn: pip install 'orchard[web]'") from None
    mine = {socket.gethostname().lower()} if host in ("0.0.0.0", "::") else {host.lower()}
    hosts = LOOPBACK | mine | {name.lower() for name in names}
    settings = Settings(
        hosts=frozenset(hosts), token=token, models=models, runs=runs, most_upload_bytes=most_mib << 20, page=page
    )
    return make_app(settings)


def _serve(app: App, listening: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, date_header=False, limit_concurrency=512,
        timeout_keep_alive=30, h11_max_incomplete_event_size=64 << 10, timeout_graceful_shutdown=3,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def register(app: typer.Typer) -> None:
    """Add the commands to the `orchard` application."""
    app.command("serve")(serve)
    app.command("lab")(lab)
