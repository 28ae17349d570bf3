"""The catalog in a Supabase project, or in any PostgreSQL behind PostgREST."""

from .catalog import SupabaseCatalog

__all__ = ["SupabaseCatalog"]
