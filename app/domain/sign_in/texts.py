"""Everything that the sign-in pages say, in one place: whoever brings another language translates this file.

Texts are plain; they are escaped where they are put into a page. In a template `$say_<name>` stands for one of `TEXTS`.
"""

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    "lang": "en",
    "product": "Data Fusion Hub",
    "error_prefix": "Error: ",
    "documentation": "Documentation",
    # the form
    "sign_in": "Sign in",
    "email": "Email address",
    "password": "Password",
    "organisation": "Organisation",
    "organisation_hint": "Its short name. Only needed if you belong to several here.",
    "or": "or",
    "going_on_to": "You will continue to",
    "program_here": "a program on this computer",
    "app_here": "an app on this device",
    # second factors and passkeys
    "factor_title": "Confirm that it is you",
    "factor_code": "Code",
    "factor_hint": "Six digits from your authenticator app, or one of your recovery codes.",
    "factor_go_on": "Go on",
    "factor_only_passkey": "Use your passkey, or one of your recovery codes.",
    "passkey_use": "Use a passkey",
    "passkey_sign_in": "Sign in with a passkey",
    "passkey_title": "Sign in with a passkey",
    "passkey_hint": "Your device or security key asks you to confirm that it is you. No password is needed.",
    "passkey_no_script": "Passkeys need JavaScript. Switch it on for this site, or sign in with your password.",
    "passkey_back": "Sign in with a password",
    # what went wrong, and what to do about it
    "problem": "There is a problem",
    "start_title": "Nothing to sign in to yet",
    "start": "Data Fusion Hub knows the people of a data platform and what they may do. You come to this page from the "
    "program that you want to use, or from the documentation.",
    "start_link": "Sign in on the documentation pages",
    "altered_title": "This sign-in cannot go on",
    "altered": "The address of this page is not complete, or was changed on its way.",
    "over_title": "This took too long",
    "over": "A sign-in has to be finished within half an hour. Nothing has happened to your account.",
    "no_cookie_title": "This browser keeps no cookies",
    "no_cookie": "The hub needs one cookie until you are signed in, to know that it is the same browser that began. "
    "Allow cookies for this site.",
    "other_browser_title": "This sign-in began elsewhere",
    "other_browser": "It was begun in another browser or window. If somebody sent you a link to this page, do not sign "
    "in with it.",
    "cross_site_title": "This came from another site",
    "cross_site": "The form was not sent from the hub's own page, so it was not looked at.",
    "begin_anew": "Go back to the program that you want to use, and begin there once more.",
    "back_to": "Back to",
    "failed_title": "This did not work",
    "limited_title": "Too many attempts",
    "limited": "There were too many attempts in a short time. Try again in",
    "request_id": "If you ask for help, name this",
}

SECONDS = ("{} second", "{} seconds")
MINUTES = ("{} minute", "{} minutes")

PROBLEMS: Mapping[str, str] = {
    "invalid_credentials": "Email address or password is wrong.",
    "invalid_factor": "That code or passkey is not right, or was used already. Codes change every half minute.",
    "invalid_mfa_token": "This took too long. Try once more.",
    "login_busy": "Too many people are signing in at this moment. Wait a little, then try again.",
    "not_found": "There is no such page.",
    "method_not_allowed": "There is no such page.",
    "payload_too_large": "What was sent is longer than any answer to this page can be.",
    "internal_error": "The hub made a mistake. It is in its log.",
}
"""By the code of an error. One that has none here is told in the words of the API."""


def waiting_time(seconds: int) -> str:
    """Such as `2 minutes`, never less than is needed."""
    number, words = (seconds, SECONDS) if seconds <= 90 else (-(-seconds // 60), MINUTES)
    return words[number != 1].format(number)
