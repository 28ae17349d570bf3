"""A gRPC proxy on loopback that answers with a status of its own, before or after the effect."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Self

import grpc


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Instead of the server's."""

    status: str
    """The name of a gRPC status, such as ``UNAVAILABLE``."""
    after: bool
    """The request is passed on, and its answer is kept back."""


class GrpcProxy(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes on every call, unread, to *port* of this machine.

    ``choose`` is asked with the last part of a method's name for an answer instead; it may be set
    at any time, from any thread. *certificate*, a chain and its key, makes it speak TLS; whoever
    asks, the server behind it is told that its owner does.
    """

    def __init__(
        self, port: int, *, certificate: tuple[pathlib.Path, pathlib.Path] | None = None
    ) -> None:
        self.choose: Callable[[str], Answer | None] = lambda method: None
        self.calls: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((self,))
        if certificate is None:
            self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        else:
            chain, private_key = (path.read_bytes() for path in certificate)
            tls = grpc.ssl_server_credentials([(private_key, chain)])
            self.port = self._server.add_secure_port("127.0.0.1:0", tls)
        self._server.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        pass_on = self._channel.unary_stream(details.method)

        def answer(request: bytes, context: Any) -> Iterator[bytes]:
            self.calls.append(name)
            self.headers.append(dict(context.invocation_metadata()))
            chosen = self.choose(name)
            if chosen is not None and not chosen.after:
                context.abort(grpc.StatusCode[chosen.status], "said a test")
            metadata = [
                (header, "Bearer owner" if header == "authorization" else value)
                for header, value in context.invocation_metadata()
                if header != "user-agent"
            ]
            call = pass_on(request, metadata=metadata, timeout=context.time_remaining() or 30)
            context.add_callback(call.cancel)
            try:
                answers = list(call)
            except grpc.RpcError as exc:
                context.abort(exc.code(), exc.details())
            if chosen is not None:
                context.abort(grpc.StatusCode[chosen.status], "said a test")
            yield from answers

        return grpc.unary_stream_rpc_method_handler(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop(grace=None).wait()
        self._channel.close()
