"""Keeps rga-timm demo's page from fetching anything from other hosts."""

import re

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

# Gradio 5's page has scripts, style sheets and connections of other hosts that are not needed.
_FOREIGN = re.compile(
    rb'<(?:script|link)\b[^>]*?\b(?:src|href)="(?:https?:)?//[^"]*"[^>]*>(?:\s*</script>)?'
)


class OfflinePage(BaseHTTPMiddleware):
    """Remove those elements from HTML pages."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Answer a request."""
        response = await call_next(request)
        is_page = response.headers.get("content-type", "").startswith("text/html")
        body = getattr(response, "body_iterator", None)
        if body is None or not is_page:
            return response
        page = b"".join([part async for part in body])
        headers = {k: v for k, v in response.headers.items() if k != "content-length"}
        return Response(_FOREIGN.sub(b"", page), response.status_code, headers)
