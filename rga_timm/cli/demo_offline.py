"""Keeps rga-timm demo's page from fetching anything from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

# Scripts, style sheets and connections of other hosts. Gradio 5 has some of each in its page: for
# pages that embed it, and for fonts that are not used here.
_FOREIGN = re.compile(
    rb'<(?:script|link)\b[^>]*?\b(?:src|href)="(?:https?:)?//[^"]*"[^>]*>(?:\s*</script>)?'
)


def without_foreign(page: bytes) -> bytes:
    """A page of HTML without the elements that fetch from other hosts."""
    return _FOREIGN.sub(b"", page)


class OfflinePage:
    """ASGI middleware that takes those elements out of the page, and leaves all else alone."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request."""
        start: Message | None = None  # of a page, held back until its length is known
        page = b""

        async def send_offline(message: Message) -> None:
            nonlocal start, page
            if message["type"] == "http.response.start" and _is_html(message):
                start = message
            elif start is None:
                await send(message)
            else:
                page += message.get("body", b"")
                if not message.get("more_body"):
                    page = without_foreign(page)
                    length = (b"content-length", str(len(page)).encode())
                    others = [h for h in start["headers"] if h[0].lower() != length[0]]
                    await send({**start, "headers": [*others, length]})
                    await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, send_offline if scope["type"] == "http" else send)


def _is_html(start: Message) -> bool:
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    return headers.get(b"content-type", b"").startswith(b"text/html")
