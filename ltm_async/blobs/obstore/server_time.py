"""The clock of a server, by which the age of its objects is told."""

from __future__ import annotations

import ssl
import urllib.request
from urllib.parse import urlsplit

from ...clock import header_date_us
from ...errors import UnavailableError
from .options import Options

TIMEOUT_S = 10.0


def server_time_us(options: Options) -> int | None:
    """Microseconds since the epoch, or None if the server does not say; it blocks.

    The driver shows no header of a reply. So the server is asked for its front page, without
    credentials, and whatever it answers has the time.
    """
    context = ssl.create_default_context()
    if options.ca_file is not None:
        context.load_verify_locations(options.ca_file)
    opener = urllib.request.OpenerDirector()  # without what follows redirects, and raises
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
    ):
        opener.add_handler(handler)
    place = urlsplit(options.endpoint_url)
    request = urllib.request.Request(f"{place.scheme}://{place.netloc}/", method="HEAD")  # noqa: S310  # http or https
    try:
        with opener.open(request, timeout=TIMEOUT_S) as reply:
            date = reply.headers.get("Date", "")
    except OSError as exc:
        raise UnavailableError(
            f"{options.cloud}: the server does not tell its time: {type(exc).__name__}",
            store=options.cloud,
        ) from exc
    return header_date_us(date)
