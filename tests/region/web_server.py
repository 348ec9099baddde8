"""A web server on this machine whose files can be asked for in ranges, and which fails as told."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Web:
    """files: path -> bytes. faults: path -> list of what to do instead, one a request: a status
    or (status, headers), "half" (of the body), "wrong" (a byte), "close" (no answer), "whole" (no
    ranges), "stall" (half of the body, then nothing). seen: (method, path, headers).
    """

    def __init__(self) -> None:
        self.files = {}
        self.tags = {}
        self.faults = {}
        self.seen = []
        self.url = ""
        self.heeds_if_range = True
        self.stalled = threading.Event()
        self.over = threading.Event()

    def asked(self, path: str, header: str = "Range") -> list[str | None]:
        """A header of each GET for a path."""
        return [h.get(header) for method, p, h in self.seen if (method, p) == ("GET", path)]


def answer(web: Web, request: BaseHTTPRequestHandler) -> None:
    """One request."""
    path = unquote(urlsplit(request.path).path)
    web.seen.append((request.command, path, dict(request.headers)))
    faults = web.faults.get(path, [])
    fault = faults.pop(0) if faults else None
    if fault == "close":
        request.close_connection = True
        return
    if isinstance(fault, int | tuple) or path not in web.files:
        status, headers = fault if isinstance(fault, tuple) else (fault or 404, {})
        send(request, status, headers, b"<html>not now</html>")
        return
    body = web.files[path]
    headers = {"ETag": web.tags.get(path, f'"{len(body)}"')}
    if headers["ETag"] == "":
        headers = {}
    tag = headers.get("ETag") if web.heeds_if_range else request.headers.get("If-Range")
    first, last = span(request, tag, len(body))
    status = 200
    if first is not None and fault != "whole":
        status = 206 if first < len(body) else 416
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        if status == 416:
            headers["Content-Range"] = f"bytes */{len(body)}"
        body = body[first : last + 1]
    if fault == "wrong":
        body = bytes([body[0] ^ 1]) + body[1:]
    send(request, status, headers, body, fault, web)


def span(request: BaseHTTPRequestHandler, tag: str | None, size: int) -> tuple:
    """First and last byte that are asked for; (None, None) for all."""
    text = request.headers.get("Range")
    if text is None or request.headers.get("If-Range", tag) != tag:
        return None, None
    first, last = text.removeprefix("bytes=").split("-")
    return int(first), min(int(last or size), size - 1)


def send(request, status, headers, body, fault=None, web=None) -> None:
    """An answer, the half of one where that is the fault."""
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "HEAD":
        return
    half = fault in ("half", "stall")
    request.wfile.write(body[: len(body) // 2] if half else body)
    if fault == "stall":
        request.wfile.flush()
        web.stalled.set()
        web.over.wait(20)
    if half:
        request.close_connection = True


@contextmanager
def serving():
    """A server that answers while the block runs."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_GET(self):
            answer(web, self)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        web.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
