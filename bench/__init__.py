"""The measuring programs, and what the hub is compared with."""
