"""Catalogs: one module or package for each database."""
