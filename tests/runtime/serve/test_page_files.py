"""The files that a browser is given, and no others."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from alm.serve.web import FOLDER
from tests.runtime.serve.serving import Served


def get(there: Served, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the path is sent as it stands."""
    line = http.client.HTTPConnection(urlsplit(there.url).netloc, timeout=60)
    try:
        line.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = line.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        line.close()


def test_its_files_are_given_and_may_load_nothing_from_elsewhere(demo_served: Served) -> None:
    names = {path.name: f"/page/{path.name}" for path in FOLDER.iterdir()}
    for name, path in (names | {"index.html": "/"}).items():
        status, headers, body = get(demo_served, path)
        assert (status, body) == (200, (FOLDER / name).read_bytes())
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        tag = headers["etag"]
        assert get(demo_served, path, If_None_Match=tag)[::2] == (304, b"")
    for name in names:
        text = (FOLDER / name).read_text("utf-8")
        assert "https://" not in text and "style=" not in text and "onclick" not in text


@pytest.mark.parametrize(
    "path",
    ["app.py", "../app.py", "..%2fapp.py", "%2e%2e/web.py", "/etc/passwd", "", ".", "App.js"],
)
def test_nothing_else_is_given(demo_served: Served, path: str) -> None:
    status, headers, body = get(demo_served, f"/page/{path}")
    assert status == 404 and b'"error"' in body
    assert headers["content-type"] == "application/json"
