"""What the hub's own key to a SAML provider is sealed to. It imports little, for the hub asks at its start."""

FIELD = "saml_keys.private_key"
OLDEST_OF_EACH_KEY = "SELECT * FROM public.oldest_saml_key_of_each_key()"
