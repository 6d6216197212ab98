"""Bytes from a connection -> one HTTP/1.x answer: status, media type, body. Pure.

The parser is llhttp, by httptools; what it leaves open is settled here: where an answer without a
length ends, how long a head may be, what is no answer to the request. Nothing is unpacked, as no
packing is asked for.
"""

from __future__ import annotations

import httptools

# of the status line and the headers of one answer, with those of any 1xx before it
MAX_HEAD_BYTES = 65_536


class Answer:
    """One answer, as far as it has come.

    status: 0 until the head is here. kind: the media type in lower case, "" without one.
    size: bytes that came since the last `take`, at most so many of the body wait for the next one.
    over: all of it has come; broken: it can't come any more. kept: the engine takes another request
    on the same connection.
    """

    __slots__ = (
        "_head_bytes",
        "_informational",
        "_kind",
        "_parser",
        "_parts",
        "_sized",
        "broken",
        "kept",
        "kind",
        "on_body",
        "over",
        "size",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.kind = ""
        self.size = 0
        self.over = False
        self.broken = False
        self.kept = False
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # what the parser calls with each part
        self._head_bytes = 0
        self._kind = ""
        self._sized = False
        self._informational = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take what has come; any cut of the bytes gives the same answer."""
        parser = self._parser
        if parser is None:
            self.kept = False  # more than the one answer that was asked for
            return
        try:
            if self.status == 0:
                data = self._parse_head(parser, data)
            if data:
                self.size += len(data)
                parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.kept = False
            self.broken = not self.over
        if self.over or self.broken:
            self._parser = None  # it refers to this object

    def end(self) -> None:
        """Nothing comes any more; without a length in its head, an answer is complete by that."""
        if self.status and not self._sized:
            self.over = True
        self.broken = not self.over
        self.kept = False
        self._parser = None

    def take(self) -> bytes:
        """All of the body that waits."""
        body = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return body

    def _parse_head(self, parser: httptools.HttpResponseParser, data: bytes) -> bytes:
        """Parse what may be the head by its size; what comes after that."""
        room = MAX_HEAD_BYTES - self._head_bytes
        self._head_bytes += len(data)
        self.size += len(data[:room])
        parser.feed_data(data[:room])
        if self.status == 0:
            self.broken = self._head_bytes >= MAX_HEAD_BYTES
            return b""
        return data[room:]

    # What the parser calls.

    def on_message_begin(self) -> None:
        """The first byte of an answer; an exception ends the parsing."""
        if self.over:
            raise httptools.HttpParserError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer of a body in chunks."""
        if self.status:
            return
        name = name.lower()
        if name == b"content-type":
            self._kind = value.partition(b";")[0].strip().lower().decode("latin-1")
        elif name == b"content-length" or (
            name == b"transfer-encoding" and value.lower().rstrip().endswith(b"chunked")
        ):
            self._sized = True

    def on_headers_complete(self) -> None:
        """The end of a head."""
        status = self._parser.get_status_code() if self._parser else 0
        if status < 100:
            raise httptools.HttpParserError("no status")
        self._informational = status < 200
        if not self._informational:
            self.status, self.kind = status, self._kind

    def on_message_complete(self) -> None:
        """The end of an answer; after one of 1xx comes the real one."""
        if self._informational:
            self._kind, self._sized = "", False
        else:
            self.over = True
            self.kept = bool(self._parser and self._parser.should_keep_alive())
