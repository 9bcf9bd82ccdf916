"""What the secret of one-time passwords is sealed to."""

FIELD = "factors.secret"
