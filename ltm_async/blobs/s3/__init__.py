"""The blob store in a bucket of S3, or of one that speaks its protocol."""

from .store import S3BlobStore

__all__ = ["S3BlobStore"]
