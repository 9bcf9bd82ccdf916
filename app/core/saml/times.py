"""Times in messages (SAML Core section 1.3.3): always UTC."""

from datetime import UTC, datetime


def instant(text: str) -> datetime:
    """Raises ValueError for what is no xs:dateTime."""
    if "T" not in text:
        raise ValueError(text)
    read = datetime.fromisoformat(text.strip())
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
