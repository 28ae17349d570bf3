"""Clients in processes of their own, faults of all they stand on, and a judge of what was said."""
