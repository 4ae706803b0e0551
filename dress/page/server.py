"""Serve a page of Gradio behind the guard, from a thread, until the block ends."""

from __future__ import annotations

import gc
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from dress.errors import InputError
from dress.feedback.feedback_folder import MOST_BYTES
from dress.page.access import token_for
from dress.page.guard import Guard

UPLOADS, MOST_FIGURES = "GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_MAX_EVENTS"
MOST_TABS = 200  # whose controls are remembered; of an older one they are as at first
UNUSED_S = (60, 300)  # how often uploads that no page took are deleted, and from what age
CSS = Path(__file__).with_name("page.css")
THEME = gr.themes.Default(
    font=[gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
    font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
)
# a picture that is pasted or dropped anywhere goes where one that is chosen goes
PASTE = """<script>
for (const kind of ["paste", "drop", "dragover"]) document.addEventListener(kind, (event) => {
  const {files, types} = event.clipboardData || event.dataTransfer;
  if (kind !== "paste" && !types.includes("Files")) return;  // a text, which any box takes
  if (kind !== "paste") event.preventDefault();
  const input = document.querySelector("input[data-testid$='upload-button']");
  if (!input || kind === "dragover" || !files.length) return;
  const chosen = new DataTransfer();
  chosen.items.add(files[0]);
  input.files = chosen.files;
  input.dispatchEvent(new Event("change", {bubbles: true}));
});
</script>"""


@contextmanager
def serving(
    build: Callable[[], gr.Blocks], *, host: str, port: int, per_minute: int
) -> Iterator[str]:
    """Yield the address once the page answers there; uploads lie in a folder that is removed.

    The page is built here: what it is made of asks at once for that folder.
    """
    token = token_for(host, os.environ)
    with tempfile.TemporaryDirectory(prefix="dress-chat-", ignore_cleanup_errors=True) as uploads:
        os.environ |= {UPLOADS: uploads, MOST_FIGURES: "100"}
        page = build()
        page.state_session_capacity = MOST_TABS
        app = gr.mount_gradio_app(
            FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
            page,
            path="/",
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=MOST_BYTES,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=THEME,
            css=CSS.read_text(encoding="utf-8"),
            head=PASTE,
        )
        # or Gradio copies any file that a request names to where it serves
        page.has_launched = True
        guard = Guard(app, host=host, token=token, per_minute=per_minute)
        config = uvicorn.Config(
            guard, log_level="critical", access_log=False, timeout_graceful_shutdown=1, ws="none"
        )
        server = uvicorn.Server(config)
        taken = _bound(host, port)
        gc.collect()
        gc.freeze()  # what events leave is then found without a look at all that was loaded
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise InputError("the page could not be started: give another chat.port.")
                time.sleep(0.02)
            name = f"[{host}]" if ":" in host else host
            yield f"http://{name}:{taken.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(3)


def uploaded(file: Any) -> Path:
    """Return where a picture lies that was uploaded; InputError for anything else."""
    path = file.get("path") if isinstance(file, dict) else None
    found = Path(path if isinstance(path, str) else "").resolve()
    if not found.is_relative_to(Path(os.environ[UPLOADS]).resolve()):
        raise InputError("the picture was not uploaded here: choose it again.")
    return found


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except OSError as error:
        raise InputError(
            f"{host}:{port} cannot be listened at ({error.strerror}): give another chat.port or "
            "chat.host."
        ) from None
    return taken
