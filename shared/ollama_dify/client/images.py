"""Fetching the images that a conversation names by a web address, where the settings allow that."""

from __future__ import annotations

from functools import partial
from urllib.parse import urljoin

from ..errors import UnsupportedContentError
from ..media.file import DEFAULT_LIMITS
from ..media.image import Image, ImageUrl
from ..media.load import load_image
from ..media.urls import check_image_url, check_public_address
from ..settings.model import ChatSettings
from ..transport.network import Compute, Fetched, FetchPinned, Flow, Resolve, TimeLeft

__all__ = ["fetch_image"]

REDIRECTS = 3
FETCH_S = 10.0
"""An image's address may be slow or hostile: names, redirects and body come within this time."""


def fetch_image(address: ImageUrl, settings: ChatSettings) -> Flow[Image]:
    """Fetch an image: every address of the host must be public, the connection goes to the one that was
    checked, each redirect is checked anew, and no credentials are sent."""
    url, within = address.url, TimeLeft(FETCH_S)
    for _ in range(REDIRECTS + 1):
        target = check_image_url(url, where=address.where)
        found = yield Resolve(target.host, target.port, within)
        for ip in found:
            check_public_address(ip, where=address.where)
        if not found:
            raise UnsupportedContentError(f"{address.where}: the host {target.host!r} has no address.")
        answer: Fetched = yield FetchPinned(target, found[0], DEFAULT_LIMITS.max_bytes, within)
        if answer.location is None:
            image: Image = yield Compute(partial(load_image, answer.body, settings, where=address.where))
            return image
        url = urljoin(url, answer.location)
    raise UnsupportedContentError(f"{address.where}: the address redirects more than {REDIRECTS} times.")
