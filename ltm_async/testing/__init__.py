"""What an author of a catalog or blob store tests it with; ours run on the same."""
