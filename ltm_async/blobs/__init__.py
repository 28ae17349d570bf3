"""Blob stores: one module for each kind of storage."""
