"""Lists: what is asked of them, what narrows them, and the pages that they become."""
