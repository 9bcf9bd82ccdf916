"""What a type is: its class, its steps, how work ends, what counts as the same place."""
