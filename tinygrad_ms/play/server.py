"""The server of the playground: this machine alone, and only a page that knows the token.

Whatever page is open in the same browser could send requests to a port of this machine. So every address holds a random
token, the Host must be this server (no other name that leads here), a foreign Origin is refused, and what is sent is
JSON of settings and numbers of a limited size.
"""

import json
import os
import secrets
import sys
import webbrowser
from collections import OrderedDict
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import Lock
from urllib.parse import parse_qs, urlsplit

from tinygrad_ms.options import is_int, is_real
from tinygrad_ms.play.settings import ACTIVATIONS, DATA, MOST_LAYERS, MOST_NEURONS, OPTIMIZERS, checked, learning_rate
from tinygrad_ms.play.training import Training

MOST_BYTES = 2_000_000
MOST_TRAININGS = 4  # one for each window; the oldest goes
LONGEST = 0.1  # seconds of training in one request


class Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


class Playground(ThreadingHTTPServer):
    """Serves the playground on 127.0.0.1. ``url`` is where; ``serve_forever`` and ``shutdown`` as of any server.

    port: 0 takes a free one. Raises OSError where the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there two servers could have one port

    def __init__(self, port: int = 0):
        self.token = secrets.token_urlsafe(24)
        self.trainings: OrderedDict[str, Training] = OrderedDict()
        self.guard = Lock()
        super().__init__(("127.0.0.1", port), Answers)
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.url = f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def server_bind(self):
        TCPServer.server_bind(self)  # HTTPServer asks the network for the name of this machine, too
        self.server_name, self.server_port = self.socket.getsockname()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):  # a page that was closed is no news
            super().handle_error(request, client_address)

    def start(self, settings) -> str:
        """A new training; returns its key."""
        training, key = Training(settings), secrets.token_hex(8)
        with self.guard:
            self.trainings[key] = training
            while len(self.trainings) > MOST_TRAININGS:
                self.trainings.popitem(last=False)
        return key

    def training(self, key) -> Training:
        with self.guard:
            if not isinstance(key, str) or key not in self.trainings:
                raise Refused(410, "This training has ended, since newer ones were started; press Restart.")
            self.trainings.move_to_end(key)
            return self.trainings[key]


class Answers(BaseHTTPRequestHandler):
    """One request."""

    server: Playground
    protocol_version, server_version, sys_version, timeout = "HTTP/1.1", "tinygrad_ms", "", 30

    def log_message(self, format, *arguments):
        """Nothing is printed."""

    def do_GET(self):
        self.taken = False
        self.answer({"": self.page, "step": self.step_page})

    def do_POST(self):
        self.taken = False
        self.answer({"start": self.start, "run": self.run})

    def answer(self, doors):
        try:
            name, query = self.admitted()
            if name not in doors:
                raise Refused(404, "There is nothing at this address.")
            doors[name](query)
        except Refused as refused:
            if not self.drained():
                self.close_connection = True
            self.send(refused.status, "application/json", json.dumps({"error": str(refused)}))

    def admitted(self) -> tuple[str, dict]:
        """The name of what is asked for. Raises Refused for a request that does not come from the page."""
        if self.headers.get("Host") not in self.server.hosts:
            raise Refused(403, "The playground answers on 127.0.0.1 alone.")
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            raise Refused(403, "The playground answers its own page alone.")
        parts = urlsplit(self.path)
        token, _, name = parts.path.lstrip("/").partition("/")
        if not compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "The address lacks the token: open the one that `python -m tinygrad_ms play` printed.")
        return name, {key: values[-1] for key, values in parse_qs(parts.query).items()}

    def send(self, status, kind, text, policy="default-src 'none'"):
        data = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", len(data)), ("Cache-Control", "no-store"),
            ("Content-Security-Policy", f"{policy}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
            ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"), ("Cross-Origin-Opener-Policy", "same-origin"),
        ):  # fmt: skip
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdecimal() and len(text) < 12 else None

    def drained(self) -> bool:
        """Read what is left of a request, so that the answer arrives; False for one that is too long."""
        length = 0 if self.taken or self.command == "GET" else self.length()
        if length is None or length > MOST_BYTES:
            return False
        return len(self.rfile.read(length)) == length

    def received(self) -> dict:
        """The JSON object that was sent."""
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "What is sent must be JSON.")
        length = self.length()
        if length is None:
            raise Refused(411, "What is sent must say its length.")
        if length > MOST_BYTES:
            raise Refused(413, f"{length / 1e6:.1f} MB are too much; at most {MOST_BYTES / 1e6:g} MB are taken.")
        self.taken = True
        try:
            sent = json.loads(self.rfile.read(length), parse_constant=not_finite)
        except (ValueError, RecursionError):
            raise Refused(400, "What is sent is no JSON.") from None
        if not isinstance(sent, dict):
            raise Refused(400, "What is sent must be a JSON object.")
        return sent

    # --- what there is --------------------------------------------------------------------------------------

    def page(self, query):
        nonce = secrets.token_urlsafe(16)
        choices = {"data": DATA, "activations": list(ACTIVATIONS), "optimizers": list(OPTIMIZERS),
                   "most_layers": MOST_LAYERS, "most_neurons": MOST_NEURONS}  # fmt: skip
        text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        text = text.replace("@@NONCE@@", nonce).replace("@@CHOICES@@", json.dumps(choices))
        policy = f"default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        self.send(200, "text/html", text, policy)

    def start(self, query):
        try:
            settings = checked(self.received())
            key = self.server.start(settings)
        except ValueError as error:
            raise Refused(422, str(error)) from None
        training = self.server.training(key)
        with training.lock:
            self.send_json({"training": key, **training.facts(), "state": training.state()})

    def run(self, query):
        sent = self.received()
        training = self.server.training(sent.get("training"))
        steps, seconds, since = sent.get("steps", 1), sent.get("seconds", 0), sent.get("since", 0)
        if not is_int(steps) or not 0 <= steps <= 10_000 or not is_int(since) or since < 0:
            raise Refused(422, "steps and since must be whole numbers, steps from 0 to 10000.")
        if not is_real(seconds):
            raise Refused(422, "seconds must be a number.")
        with training.lock:
            if "lr" in sent:
                try:
                    training.set_rate(learning_rate(sent["lr"]))
                except ValueError as error:
                    raise Refused(422, str(error)) from None
            training.run(steps, min(max(seconds, 0), LONGEST) if seconds else LONGEST)
            self.send_json(training.state(since))

    def step_page(self, query):
        training = self.server.training(query.get("training"))
        with training.lock:
            text = training.page()
        self.send(200, "text/html", text, "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'")

    def send_json(self, value):
        self.send(200, "application/json", json.dumps(value, allow_nan=False))


def not_finite(name):
    """NaN and Infinity are no JSON."""
    raise ValueError(name)


def play(port: int = 0, browser: bool = True) -> None:
    """Serve the playground until Ctrl-C, and open it in the browser. Raises ValueError for a port that is taken."""
    try:
        server = Playground(port)
    except (OSError, OverflowError):
        raise ValueError(f"play: port {port} cannot be had; choose another with --port, or leave it out") from None
    try:
        with server:
            print(f"The playground is at {server.url}\nIt answers this machine alone. Ctrl-C ends it.", flush=True)
            if browser:
                webbrowser.open(server.url)
            server.serve_forever()
    except KeyboardInterrupt:
        print("\nThe playground has ended.")
