"""A type whose driver starts a thread as it is imported."""
