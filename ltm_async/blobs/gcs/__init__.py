"""The blob store in a bucket of Google Cloud Storage."""

from .store import GCSBlobStore

__all__ = ["GCSBlobStore"]
