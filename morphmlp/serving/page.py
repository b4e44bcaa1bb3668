"""The page, with what a browser may do for it."""

import base64
import hashlib
import re
from importlib.resources import files

_FILE = "page.html"


def page() -> tuple[str, dict[str, str]]:
    """HTML, and headers by which nothing but its own script and style runs, and nothing is loaded from elsewhere."""
    html = (files(__package__) / _FILE).read_text(encoding="utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash_of('script', html)}",
            f"style-src {_hash_of('style', html)}",
            "connect-src 'self'",
            "media-src blob:",
            "img-src blob: data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return html, {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


def _hash_of(element: str, html: str) -> str:
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
