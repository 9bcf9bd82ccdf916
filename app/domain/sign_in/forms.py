"""The pieces that the pages of signing in are put together from: fields, forms, what went wrong, links."""

from collections.abc import Mapping, Sequence

from app.domain.sign_in.rendering import NOTHING, Markup, fill, together
from app.domain.sign_in.texts import TEXTS

PROBLEM = "problem"
"""The id of what went wrong, which the fields are described by."""


def field(
    name: str,
    label: str,
    *,
    kind: str = "text",
    value: str = "",
    autocomplete: str = "off",
    hint: str = "",
    most: int = 320,
    is_needed: bool = True,
    is_wrong: bool = False,
    has_focus: bool = False,
    inputmode: str = "",
) -> Markup:
    """One labelled input. `kind` is its HTML type, `most` the characters that it takes."""
    described = " ".join([f"{name}-hint"] * bool(hint) + [PROBLEM] * is_wrong)
    flags = {"required": is_needed, "autofocus": has_focus, 'aria-invalid="true"': is_wrong}
    said = {"inputmode": inputmode, "aria-describedby": described, "value": value}
    extra = [fill("attribute", name=each, value=text) for each, text in said.items() if text]
    extra += [Markup(f" {flag}") for flag, is_set in flags.items() if is_set]
    shown = fill("hint", id=f"{name}-hint", text=hint) if hint else NOTHING
    given = {"name": name, "label": label, "kind": kind, "autocomplete": autocomplete, "most": str(most)}
    return fill("field", **given, hint=shown, extra=together(extra))


def hidden(name: str, value: str) -> Markup:
    return fill("hidden", name=name, value=value)


def form(action: str, fields: Sequence[Markup], button: str, kept: Mapping[str, str]) -> Markup:
    """`action` is a path as the browser sees it, `kept` what comes back with the form unseen."""
    inside = together([*(hidden(name, value) for name, value in kept.items()), *fields])
    return fill("form", action=action, fields=inside, button=button)


def problem(text: str) -> Markup:
    """Read out at once by a screen reader, and where the focus is when the page comes."""
    return fill("problem", id=PROBLEM, text=text)


def paragraph(text: str) -> Markup:
    return fill("paragraph", text=text)


def link(text: str, address: str) -> Markup:
    """A line of its own."""
    return fill("link", text=text, address=address)


def button_link(text: str, address: str) -> Markup:
    """A link that looks like a button: another way to sign in."""
    return fill("button_link", text=text, address=address)


def title_of(text: str, *, is_wrong: bool = False) -> str:
    """Of the browser's window."""
    return f"{TEXTS['error_prefix'] * is_wrong}{text} · {TEXTS['product']}"
