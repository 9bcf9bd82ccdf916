"""What a type is.

base       the class of every type
config     what configs and secrets are made of
objects    what a source holds, and a sample of it
steps      how a check is told
pinning    how names become addresses
failures   how work ends
identity   what counts as the same place
"""
