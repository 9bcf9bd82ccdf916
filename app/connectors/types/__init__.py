"""The data source types: one file each, or a folder of the type's name with a `connector.py` when it grows."""
