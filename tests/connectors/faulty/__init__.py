"""A package of connector types that go wrong on purpose, found by a sandbox that is told of it."""
