"""Portable values: what a cell of any source is as JSON, and rows made of documents and messages."""
