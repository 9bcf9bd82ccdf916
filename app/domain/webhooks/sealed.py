"""What a webhook's secret is sealed to. It imports little, for the hub asks at its start."""

FIELD = "webhook_secrets.secret"
OLDEST_OF_EACH_KEY = "SELECT * FROM public.oldest_webhook_secret_of_each_key()"
