"""A STAC API of the standard library over a demo catalog's files, with ranges, paging and tokens,
that fails as real servers do when it is told to.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = 3  # items, whatever is asked for
CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
]


@dataclass
class Fault:
    """What happens to the next `times` requests whose path contains `part`: a status, or "half" of
    the body, "wrong" bytes of the right length, "nothing" at all.
    """

    part: str
    kind: int | str
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


class StacServer(ThreadingHTTPServer):
    """Serves a folder that `write_catalog` wrote. seen: (method, path) of each request."""

    daemon_threads = True

    def __init__(self, folder: Path, items: list[dict]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        self.tokens = 0
        self.signed = False  # files want a token: the newest one
        self.expires_after = 10**9  # answers with files, after which a token is refused
        self.given = 0  # of them with the token
        self.lock = threading.Lock()
        self.items = [self._served(item) for item in items]

    def _served(self, item: dict) -> dict:
        """An item with hrefs on this server."""
        item = json.loads(json.dumps(item))
        for asset in item["assets"].values():
            place = f"{item['collection']}/{item['id']}"
            asset["href"] = f"{self.base}/data/{place}/{Path(asset['href']).name}"
        return item | {"links": []}

    def fault(self, path: str) -> Fault | None:
        """The fault that a request for a path meets."""
        with self.lock:
            for fault in self.faults:
                if fault.part in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is nothing to tell of."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body: dict | None) -> None:
        server = self.server
        path, _, query = self.path.partition("?")
        server.seen.append((self.command, path))
        fault = server.fault(path)
        if fault and fault.kind == "nothing":
            self.close_connection = True
            return
        if fault and isinstance(fault.kind, int):
            self.send(fault.kind, b"no", fault.headers)
        elif path.startswith("/data/"):
            self.file(server.folder / path.removeprefix("/data/"), query, fault)
        elif (found := self.json(path, body)) is None:
            self.send(404, b"{}")
        else:
            self.send(200, json.dumps(found).encode(), fault=fault)

    def json(self, path: str, body: dict | None) -> dict | None:
        base = self.server.base
        collection = {
            "type": "Collection", "stac_version": "1.0.0", "id": "sentinel-2-l2a", "links": [],
            "description": "d", "license": "other",
            "extent": {"spatial": {"bbox": [[5, 50, 7, 51]]},
                       "temporal": {"interval": [["2015-01-01T00:00:00Z", None]]}},
        }  # fmt: skip
        if path == "/":
            links = [
                {"rel": rel, "href": base + href, "type": "application/json"}
                for rel, href in (("self", "/"), ("root", "/"), ("data", "/collections"))
            ]
            links.append({"rel": "search", "href": f"{base}/search", "method": "POST",
                          "type": "application/geo+json"})  # fmt: skip
            return {"type": "Catalog", "stac_version": "1.0.0", "id": "t", "description": "d",
                    "conformsTo": CONFORMS, "links": links}  # fmt: skip
        if path == "/collections":
            return {"collections": [collection], "links": []}
        if path == "/token":
            self.server.tokens += 1
            self.server.given = 0
            expiry = datetime.now(UTC) + timedelta(hours=1)
            return {"token": f"sig={self.server.tokens}",
                    "msft:expiry": f"{expiry:%Y-%m-%dT%H:%M:%SZ}"}  # fmt: skip
        return self.search(body) if path == "/search" else None

    def search(self, body: dict) -> dict:
        first, last = body["datetime"].split("/")
        west, south, east, north = body["bbox"]
        found = [
            item
            for item in self.server.items
            if item["collection"] in body["collections"]
            and first <= item["properties"]["datetime"] <= last
            and item["bbox"][0] <= east and item["bbox"][2] >= west
            and item["bbox"][1] <= north and item["bbox"][3] >= south
        ]  # fmt: skip
        start = int(body.get("token", 0))
        links = []
        if start + PAGE < len(found):
            links = [{"rel": "next", "href": f"{self.server.base}/search", "method": "POST",
                      "merge": True, "body": {"token": str(start + PAGE)}}]  # fmt: skip
        page = found[start : start + PAGE]
        return {"type": "FeatureCollection", "features": page, "links": links}

    def file(self, path: Path, query: str, fault: Fault | None) -> None:
        if self.server.signed:
            expired = self.server.given >= self.server.expires_after
            if expired or query != f"sig={self.server.tokens}":
                return self.send(403, b"expired")
            self.server.given += 1
        if not path.is_file():
            return self.send(404, b"")
        data = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            return self.send(200, data, fault=fault)
        first = int(match[1])
        last = min(int(match[2] or len(data) - 1), len(data) - 1)
        if first >= len(data):
            return self.send(416, b"")
        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return self.send(206, data[first : last + 1], headers, fault)

    def send(
        self, status: int, data: bytes, headers: dict | None = None, fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for name, value in ({"Accept-Ranges": "bytes"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault and fault.kind == "wrong":
            data = bytes((7 * i + 13) % 256 for i in range(len(data)))
        if fault and fault.kind == "half":
            data = data[: len(data) // 2]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def serving(folder: Path) -> Iterator[StacServer]:
    """A server of a catalog's folder, for as long as the block lasts."""
    paths = sorted(folder.glob("*/*/*.json"))
    server = StacServer(folder, [json.loads(path.read_text()) for path in paths])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
