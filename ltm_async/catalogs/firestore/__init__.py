"""The catalog in a Firestore database."""

from .catalog import FirestoreCatalog

__all__ = ["FirestoreCatalog"]
