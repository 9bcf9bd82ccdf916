"""What the secret of an identity provider is sealed to. It imports little, for the hub asks at its start."""

FIELD = "identity_providers.client_secret"
OLDEST_OF_EACH_KEY = "SELECT * FROM public.oldest_identity_provider_secret_of_each_key()"
