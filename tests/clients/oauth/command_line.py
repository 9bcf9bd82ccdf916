"""A command-line program that lets its user sign in with the hub (RFC 8252), with nothing but Python's own library:
`python command_line.py http://127.0.0.1:8000`."""

import base64
import hashlib
import json
import secrets
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import Request, urlopen

HUB = sys.argv[1]
CLIENT_ID = "hub-cli"


class Callback(BaseHTTPRequestHandler):
    """To which the browser comes back, once."""

    answer: dict[str, str] = {}

    def do_GET(self) -> None:
        Callback.answer = dict(parse_qsl(urlsplit(self.path).query))
        self.send_response(200)
        self.end_headers()
        said = "Signed in." if "code" in Callback.answer else "You are not signed in."
        self.wfile.write(f"{said} You can close this window.".encode())

    def log_message(self, *_: object) -> None:
        """The address holds the code: nothing is logged."""


def get(url: str, token: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return json.load(urlopen(Request(url, headers=headers)))


def sign_in() -> dict[str, Any]:
    """The tokens."""
    known = get(f"{HUB}/.well-known/oauth-authorization-server")
    listening = HTTPServer(("127.0.0.1", 0), Callback)  # whatever port is free
    redirect_uri = f"http://127.0.0.1:{listening.server_port}/callback"
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": redirect_uri,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "state": state,
    }
    address = f"{known['authorization_endpoint']}?{urlencode(asked)}"
    print(address, flush=True)
    if sys.stdout.isatty():
        webbrowser.open(address)
    listening.handle_request()
    answer = Callback.answer
    if (answer.get("state"), answer.get("iss")) != (state, known["issuer"]):
        sys.exit("This is not the answer to what was asked.")
    if "code" not in answer:
        sys.exit(answer.get("error_description", answer.get("error", "No code came.")))
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
        "client_id": CLIENT_ID,
    }
    tokens: dict[str, Any] = json.load(urlopen(known["token_endpoint"], urlencode(form).encode()))
    return tokens


if __name__ == "__main__":
    print(get(f"{HUB}/api/v1/auth/me", sign_in()["access_token"])["user"]["email"])
