"""The README's example of a new type, found by a sandbox that is told of it."""
