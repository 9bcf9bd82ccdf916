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
    "organisation_first_hint": "Its short name, for its own ways to sign in. With a password you can leave this empty: "
    "your email address will do.",
    "organisation_other": "Change the organisation",
    "organisation_name": "Name your organisation",
    "go_on": "Continue",
    "or": "or",
    "provider": "Sign in with {}",
    "going_on_to": "You will continue to",
    "program_here": "a program on this computer",
    "app_here": "an app on this device",
    # second factors and passkeys
    "factor_title": "Confirm that it is you",
    "factor_code": "Code",
    "factor_hint": "Six digits from your authenticator app, or one of your recovery codes.",
    "factor_signed_in_as": "You are signing in as",
    "factor_begin_anew": "Sign in as somebody else",
    "factor_only_passkey": "Use your passkey, or one of your recovery codes.",
    "passkey_use": "Use a passkey",
    "passkey_sign_in": "Sign in with a passkey",
    "passkey_title": "Sign in with a passkey",
    "passkey_hint": "Your device or security key asks you to confirm that it is you. No password is needed.",
    "passkey_no_script": "Passkeys need JavaScript. Switch it on for this site, or sign in with your password.",
    "passkey_back": "Sign in with a password",
    # what went wrong, and what to do about it
    "problem": "There is a problem",
    "start_title": "Where do you want to sign in?",
    "start": "Data Fusion Hub knows the people of a data platform and what they may do. You come to this page from the "
    "program that you want to use, or from the documentation.",
    "start_link": "Sign in on the documentation pages",
    "altered_title": "This sign-in cannot continue",
    "altered": "The address of this page is not complete, or was changed on its way.",
    "over_title": "This took too long",
    "over": "A sign-in has to be finished within half an hour. Nothing has happened to your account.",
    "no_cookie_title": "This browser has no cookie of the hub",
    "no_cookie": "Either this sign-in began in another browser, or this one keeps no cookies. The hub needs one until "
    "you are signed in, to know that it is the browser that began: allow cookies for this site. If somebody sent you a "
    "link to this page, do not sign in with it.",
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
    # letters
    "forgotten_link": "Forgotten your password?",
    "forgotten_title": "Forgotten password",
    "forgotten": "Enter the address that you sign in with, and you get an email with a link.",
    "forgotten_button": "Send the email",
    "no_mail": "This hub sends no mail. Ask an administrator for a new password.",
    "on_its_way_title": "Check your email",
    "on_its_way": "If somebody has that address, an email is on its way to them.",
    "look_for_letter": "Its link works for 30 minutes. If none comes, look in your spam folder, then ask an "
    "administrator.",
    "back_to_sign_in": "Back to signing in",
    "dead_link_title": "This link no longer works",
    "forgotten_again": "Ask for a new link",
    "reset_title": "Choose a new password",
    "reset_button": "Set the password",
    "new_password": "New password",
    "password_hint": "At least {} characters; any will do, a sentence is fine.",
    "reset_done_title": "Your password is changed",
    "reset_done": "Sign in with it in the program that you want to use. You have been signed out everywhere.",
    "invitation_title": "Welcome",
    "invitation": "Choose a password, and you can sign in with the address to which the invitation came.",
    "first_name": "First name",
    "last_name": "Last name",
    "invitation_button": "Accept the invitation",
    "invitation_done_title": "You can sign in now",
    "invitation_done": "With your address and the password that you have chosen, in the program that you want to use.",
    "email_title": "Confirm your address",
    "email_confirmed_by": "From then on you sign in with the address to which the email came.",
    "email_button": "Confirm the address",
    "email_done_title": "Your address is confirmed",
    "email_done": "From now on you sign in with it.",
    "no_such_text": "Something that you have typed is too long, or cannot be used here.",
}

SECONDS = ("{} second", "{} seconds")
MINUTES = ("{} minute", "{} minutes")

PROBLEMS: Mapping[str, str] = {
    "invalid_credentials": "Email address or password is wrong. After too many wrong attempts an account is locked for "
    "a while, even for the right password.",
    "invalid_factor": "That code or passkey is not right, or was used already. Codes change every half minute.",
    "invalid_mfa_token": "This took too long. Try once more.",
    "login_busy": "Too many people are signing in at this moment. Wait a little, then try again.",
    "link_not_valid": "It was used already, has expired, or is not whole. Ask for a new one.",
    "unknown_client": "The program that sent you here is not registered here (client_id). Tell those who run it.",
    "unregistered_redirect": "The program that sent you here wants you back at an address that is not registered for "
    "it (redirect_uri). Tell those who run it.",
    "not_found": "There is no such page.",
    "method_not_allowed": "There is no such page.",
    "payload_too_large": "What was sent is longer than any answer to this page can be.",
    "internal_error": "The hub made a mistake, and has noted it in its log.",
}
"""By the code of an error. One that has none here is told in the words of the API."""


def waiting_time(seconds: int) -> str:
    """Such as `2 minutes`, never less than is needed."""
    number, words = (seconds, SECONDS) if seconds <= 90 else (-(-seconds // 60), MINUTES)
    return words[number != 1].format(number)
