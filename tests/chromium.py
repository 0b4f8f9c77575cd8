"""Pages in a real browser: headless Chromium, run as a program, which needs no driver."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed to open the page in")

_HEAD = """<script>window.problems = [];
addEventListener("error", event => problems.push(String(event.message ?? event.target.src)), true);
addEventListener("securitypolicyviolation", event => problems.push(`${event.violatedDirective} ${event.blockedURI}`));
for (const kind of ["error", "warn"]) console[kind] = (...said) => problems.push(said.join(" "));</script>"""
_TAIL = """addEventListener("load", () => {{
  let found;
  try {{ found = (() => {{ {script} }})(); }} catch (error) {{ problems.push(String(error)); }}
  parent.postMessage(JSON.stringify({{found, problems, width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth}}), "*");
}});"""
# Windows have a least width, frames have none.
_FRAME = """<!doctype html><pre id="told"></pre>
<script>addEventListener("message", event => document.querySelector("#told").textContent = event.data);</script>
<iframe src="{address}" style="width: {width}px; height: 900px; border: 0"></iframe>"""


def visit(page: Path, script: str, *, width: int = 1280, fragment: str = "") -> dict[str, Any]:
    """Opens a page, runs a script on it, and tells what it returned.

    Args:
        page: the HTML file.
        script: JavaScript that returns something plain.
        width: of the page's window in pixels.
        fragment: what follows "#" in the address.

    Returns:
        "found", what the script returned; "problems", errors and warnings of the page and the script; "width", of the
        window in pixels; "overflow", by how many pixels the page is wider.
    """
    assert BROWSER is not None
    text = page.read_text().replace("<head>", f"<head>{_HEAD}", 1)
    copy = page.with_suffix(".visited.html")
    tail = _TAIL.format(script=script)
    digest = base64.b64encode(hashlib.sha256(tail.encode()).digest()).decode()
    assert "script-src " in text
    text = text.replace("script-src ", f"script-src &#x27;sha256-{digest}&#x27; ", 1)
    copy.write_text(text.replace("</body>", f"<script>{tail}</script></body>", 1))
    frame = page.with_suffix(".frame.html")
    frame.write_text(_FRAME.format(address=escape(copy.name + (f"#{fragment}" if fragment else "")), width=width))
    flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --virtual-time-budget=2000"
    command = [BROWSER, *flags.split(), f"--user-data-dir={page.parent / 'profile'}", "--window-size=1400,1000"]
    done = subprocess.run([*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=120)
    told = re.search(r'<pre id="told">(.+?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, f"the page did not finish loading: {done.stderr[-500:]}"
    found = json.loads(unescape(told[1]))
    assert isinstance(found, dict)
    return found
