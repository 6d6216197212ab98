"""A checkout of text-generation-webui that can be started: a working substitute that lies.

Its server.py loads the worker's extension as the real one does, on a stand-in for FastAPI.
"""

from __future__ import annotations

from pathlib import Path

from tests.models.weights import gguf

DECLARED = "\n".join(
    f"parser.add_argument('{name}')"
    for name in (
        *("--user-data-dir", "--model-dir", "--model", "--loader", "--ctx-size", "--parallel"),
        *("--threads", "--api-port", "--lie", "--lora-dir", "--extra-flags"),
    )
)
SHARED = f"""
import argparse
parser = argparse.ArgumentParser(allow_abbrev=False)
{DECLARED}
parser.add_argument('--lora', nargs='+')
parser.add_argument('--extensions', nargs='+')
parser.add_argument('--nowebui', action='store_true')
parser.add_argument('--api', action='store_true')
args = parser.parse_args()
original_args = args
args.api_key = 'canary'
model = tokenizer = None
model_name = args.model
lora_names = []
settings = {{'truncation_length': 512, 'mode': 'instruct', 'mcp_servers': 'canary'}}
"""
SCRIPT = """
class App:
    def __init__(self):
        self.routes = {}
    def add_route(self, path, handler, methods, include_in_schema):
        self.routes[methods[0], path] = handler
app = App()
"""
RESPONSES = """
class JSONResponse:
    def __init__(self, content):
        self.content = content
"""
SERVER = """
import asyncio, importlib.util, json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from modules import shared
from modules.api.script import app

lie = shared.args.lie
print('INFO     Loading "%s"' % shared.model_name, flush=True)
if lie == 'exit':
    print('torch.OutOfMemoryError: CUDA out of memory.', flush=True)
    sys.exit(1)
if lie == 'hang':
    time.sleep(60)
if lie == 'recorded':
    with open('recorded.json') as file:
        life = json.load(file)
    for line in life['log_tail']:
        print(line, flush=True)
    if life.get('exit_code') is not None:
        sys.exit(life['exit_code'])
    # It lives on without a model, or on another port.
    lie = 'unloaded' if 'No .gguf' in str(life) else 'other-port'
if lie == 'stubborn':
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

class LlamaServer:
    n_ctx = 256
    bos_token = ''
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    def encode(self, text, add_bos_token):
        return [1]

if lie == 'unloaded':
    if shared.args.lie != 'recorded':
        print('error loading model: tensor is out of bounds', flush=True)
else:
    shared.model = shared.tokenizer = LlamaServer()

folder = os.path.join(shared.args.user_data_dir, 'extensions', shared.args.extensions[0])
spec = importlib.util.spec_from_file_location('ext', os.path.join(folder, 'script.py'))
extension = importlib.util.module_from_spec(spec)
spec.loader.exec_module(extension)
extension.setup()

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args):
        pass
    def reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.send_header('Connection', 'close')
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        route = app.routes.get(('GET', self.path))
        if route is None:
            return self.reply(404, {})
        self.reply(200, asyncio.run(route(None)).content)
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        time.sleep(body.get('seconds', 0))
        self.reply(200, {'choices': [{'text': 'a'}]})

port = int(shared.args.api_port)
if lie == 'other-port':
    print('WARNING  Port %d is already in use. Using port 1 instead.' % port, flush=True)
    time.sleep(60)
HTTPServer(('127.0.0.1', port), Handler).serve_forever()
"""


def make_checkout(folder: Path) -> Path:
    """Write the checkout, with one model in it."""
    files = {
        "modules/__init__.py": "",
        "modules/api/__init__.py": "",
        "modules/api/script.py": SCRIPT,
        "modules/shared.py": SHARED,
        "modules/models.py": "active_generation_count = 0\n",
        "starlette/__init__.py": "",
        "starlette/responses.py": RESPONSES,
        "server.py": SERVER,
        "user_data/extensions/own/script.py": "",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    model = folder / "user_data/models/small.gguf"
    model.parent.mkdir()
    model.write_bytes(gguf(16))
    return folder
