"""A peer: keys behind HTTP, which re-encrypts what is sent to it, as `vault transit rewrap` does with `batch_input`."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection

import psycopg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.figure import Measure

_BATCH = 1000
_SECRET = 16


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys: dict[str, AESGCM] = {}  # noqa: RUF012  # of the one server in the process

    def do_POST(self) -> None:  # the name that http.server calls
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["batch_input"]
        old, new = self.keys["v1"], self.keys["v2"]
        results = []
        for item in given:
            wire = base64.b64decode(item["ciphertext"].rpartition(":")[2])
            plain, nonce = old.decrypt(wire[:12], wire[12:], None), os.urandom(12)
            made = base64.b64encode(nonce + new.encrypt(nonce, plain, None)).decode()
            results.append({"ciphertext": f"vault:v2:{made}"})
        body = json.dumps({"data": {"batch_results": results}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # the name that http.server has
        """Nothing."""


def _serve(ready: Connection, old: bytes) -> None:
    _Handler.keys = {"v1": AESGCM(old), "v2": AESGCM(os.urandom(32))}
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def _server(old: bytes) -> Iterator[str]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, old), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1/transit/rewrap/key"
    finally:
        process.kill()
        process.join()


def rewrap_on(url: str, rows: int) -> Measure:
    """One request for each thousand rows, and one statement that writes them."""
    secret = os.urandom(32)
    old = AESGCM(secret)

    def measure() -> float:
        with psycopg.connect(url, autocommit=True) as connection, _server(secret) as service:
            connection.execute("DROP TABLE IF EXISTS vaulted")
            connection.execute("CREATE TABLE vaulted (id BIGINT PRIMARY KEY, password TEXT)")
            with connection.cursor().copy("COPY vaulted FROM STDIN") as copy:
                for n in range(rows):
                    nonce = os.urandom(12)
                    wire = base64.b64encode(nonce + old.encrypt(nonce, os.urandom(_SECRET), None)).decode()
                    copy.write_row((n, f"vault:v1:{wire}"))
            began = time.perf_counter()
            for start in range(0, rows, _BATCH):
                _one_batch(connection, service, start)
            return (time.perf_counter() - began) / rows

    return measure


def _one_batch(connection: psycopg.Connection, service: str, start: int) -> None:
    found = connection.execute(
        "SELECT id, password FROM vaulted WHERE id >= %s ORDER BY id LIMIT %s", (start, _BATCH)
    ).fetchall()
    body = json.dumps({"batch_input": [{"ciphertext": password} for _, password in found]}).encode()
    request = urllib.request.Request(service, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        results = json.load(response)["data"]["batch_results"]
    changes = [(made["ciphertext"], key) for made, (key, _) in zip(results, found, strict=True)]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany("UPDATE vaulted SET password = %s WHERE id = %s", changes)
