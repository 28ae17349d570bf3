"""A process that uses everything at once, and what it holds at rest."""
