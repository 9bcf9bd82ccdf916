"""What stands behind `Bearer`: an access token, or an API key."""

from app.core.security import Tokens
from app.domain.api_keys.keys import BEGINNING, PresentedKey
from app.domain.auth.principals import Credential


def identify(tokens: Tokens, token: bytes) -> Credential:
    """Raises Unauthenticated for what is neither. Whether it is worth anything is for `Principals.of` to say."""
    return PresentedKey.read(token) if token.startswith(BEGINNING) else tokens.verify(token)
