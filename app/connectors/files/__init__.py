"""Files wherever they lie: their formats, how they are grouped into datasets, and the stores that hold them."""
