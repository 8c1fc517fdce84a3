"""`form --web`: serve the form as a page until Ctrl-C. To import it needs the extra `web`."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from argparse import Namespace
from urllib.parse import urlencode

import uvicorn

from ..language import _, current_language
from ..settings import ConnectionSettings
from ..terminal import Terminal
from ..web import make_app

__all__ = ["form"]


def form(args: Namespace, terminal: Terminal) -> int:
    """Print the page's address and serve it, to this machine only."""
    address = ConnectionSettings(base_url=args.base_url).address
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", args.port))
    except (OSError, OverflowError) as error:
        listener.close()
        terminal.complain_of_port("127.0.0.1", args.port, error)
        return 1
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    token = secrets.token_urlsafe(32)
    # Behind the #, which no browser sends: the token stays out of requests and logs.
    start = {"token": token, "lang": current_language(), "base_url": address.url, "model": args.model or ""}
    url = f"{origin}/#{urlencode(start)}"
    terminal.say(_("The form is at {url}").format(url=url))
    terminal.say(terminal.paint(_("Ctrl-C ends it."), "dim"))
    if not args.no_open:
        webbrowser.open(url)
    app = make_app(origin, token)
    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="off", access_log=False, log_level="error",
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        terminal.say(_("Ended."))
    finally:
        listener.close()
    return 0
