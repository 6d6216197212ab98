"""server.py of a fake classic checkout: starts, fails and lies as FAKE_CLASSIC in its folder says.

It runs with the tests' Python and is copied to where text-generation-webui has its server.py.
"""
# ruff: noqa: T201 - what it prints is what is tested

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiohttp import web

DONE = "Output generated in 0.01 seconds (1.00 tokens/s, {} tokens, context 1, seed 1)"
mode = Path("FAKE_CLASSIC").read_text(encoding="utf-8")


class Blocking(BaseHTTPRequestHandler):
    """The blocking API, as far as a start needs it."""

    def do_GET(self) -> None:
        """Name the model."""
        self.reply({"result": options.model})

    def do_POST(self) -> None:
        """Name the model, or generate."""
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("model"):
            self.reply({"result": "another" if mode == "another model" else options.model})
            return
        if mode == "no model":
            print("ERROR:No model is loaded! Select one in the Model tab.")
        elif mode == "out of memory":
            print("Traceback (most recent call last):")
            print('  File "/srv/modules/text_generation.py", line 339, in generate_reply_HF')
            print("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB")
        print(DONE.format(1))
        self.reply({"results": [{"text": ""}]})

    def reply(self, answer: Any) -> None:
        """Answer with HTTP/1.0 200."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's
        """Say nothing."""


async def stream(request: web.Request) -> web.StreamResponse:
    """A websocket that holds its one token back; plain HTTP is told to upgrade."""
    if "upgrade" not in request.headers.get("Connection", "").lower():
        return web.Response(status=426)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.receive()
    print(DONE.format(0))
    await socket.send_json({"event": "text_stream", "message_num": 0, "text": ""})
    await socket.send_json({"event": "stream_end", "message_num": 1})
    await socket.receive()
    return socket


async def serve_websockets(port: int) -> None:
    """Listen for ever."""
    app = web.Application()
    app.router.add_get("/{path:.*}", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def blocking_api(port: int) -> None:
    """Run in a thread, which dies alone when the port is taken."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Blocking)
    except OSError:
        traceback.print_exc()
        return
    print("\x1b[32mINFO:Blocking API URL: \x1b[0m")
    server.serve_forever()


parser = argparse.ArgumentParser()
parser.add_argument("--api", action="store_true")
parser.add_argument("--cpu", action="store_true")
parser.add_argument("--model")
parser.add_argument("--loader")
for flag in ("--api-blocking-port", "--api-streaming-port", "--listen-port"):
    parser.add_argument(flag, type=int)
options = parser.parse_args()
if mode.startswith("{"):
    life = json.loads(mode)
    print(*life["log_tail"], sep="\n", flush=True)
    if life.get("exit_code") is not None:
        sys.exit(life["exit_code"])
    time.sleep(60)
if mode.startswith("exit"):
    print(mode.removeprefix("exit "))
    sys.exit(1)
if mode == "slow":
    time.sleep(60)
threading.Thread(target=blocking_api, args=[options.api_blocking_port], daemon=True).start()
page = ThreadingHTTPServer(("127.0.0.1", options.listen_port), Blocking)
threading.Thread(target=page.serve_forever, daemon=True).start()
asyncio.run(serve_websockets(options.api_streaming_port))
