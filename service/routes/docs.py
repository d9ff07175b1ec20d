"""``GET /docs``: the OpenAPI document as pages, without a line of script in them and with nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

# Swagger UI sets styles of single elements, and has its icons in its style sheet.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Addresses are relative, so that the page also works below a prefix of a reverse proxy.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>emboundary</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
_MEDIA_TYPES = {"js": "text/javascript", "css": "text/css", "png": "image/png"}
_Asset = Literal["swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"]


@router.get("/docs")
async def docs() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """What starts it."""
    return Response(_START, media_type=_MEDIA_TYPES["js"])


@router.get("/docs/{name}")
def asset(name: _Asset) -> Response:
    """Swagger UI itself, from the package that ships it."""
    content = files("fastapi_offline").joinpath("static", name).read_bytes()
    return Response(
        content, media_type=_MEDIA_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": "max-age=86400"}
    )
