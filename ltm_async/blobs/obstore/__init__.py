"""Blob stores in Azure, S3 and Google Cloud Storage by one driver, which takes 10 ms to import."""

from .azure import AzureBlobStore
from .gcs import ObstoreGCSBlobStore
from .s3 import ObstoreS3BlobStore

__all__ = ["AzureBlobStore", "ObstoreGCSBlobStore", "ObstoreS3BlobStore"]
