"""The processes in which a type works, and what they may not do."""
