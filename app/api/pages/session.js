// Who is signed in on the documentation pages. Kept in sessionStorage: it outlasts a reload and ends with the tab.
import { sha256 } from "{digest.js}";

/** The path of the hub, "" or such as "/hub": this file lies at <hub>/docs/assets/session.js. */
export const BASE = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
/** Where the hub says it is: the only place to which it sends a browser back. */
const HUB = document.documentElement.dataset.hub;
const CLIENT = "hub-docs";
const REDIRECT = `${HUB}/docs/signed-in`;
const KEY = "data-fusion-hub";
const KEY_OF_SIGN_IN = "data-fusion-hub-sign-in";
const RENEWED_BEFORE_MS = 30_000;
const listeners = new Set();
let renewal = null;

/** {email, access_token, refresh_token, expires_at} or null; times are milliseconds since 1970. */
function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

function keep(email, tokens) {
  const { access_token, refresh_token, expires_in } = tokens;
  const expires_at = Date.now() + expires_in * 1000;
  sessionStorage.setItem(KEY, JSON.stringify({ email, access_token, refresh_token, expires_at }));
  tell();
}

function forget(reason = "") {
  sessionStorage.removeItem(KEY);
  tell(reason);
}

function tell(reason = "") {
  const session = kept();
  for (const listener of listeners) listener(session && { email: session.email, token: session.access_token }, reason);
}

/** Called now and whenever it changes, with {email, token} or null, and why somebody was signed out. */
export function onSession(listener) {
  listeners.add(listener);
  const session = kept();
  listener(session && { email: session.email, token: session.access_token }, "");
}

async function post(path, body, token) {
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(`${BASE}/api/v1/auth/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
}

/** base64url without padding (RFC 4648 section 5). */
function asText(bytes) {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

const chance = (bytes) => asText(crypto.getRandomValues(new Uint8Array(bytes)));

/** A page of the documentation of this hub, whatever was asked for. */
export function shownBefore(address = "") {
  const url = new URL(address || `${BASE}/docs`, location.origin);
  const isOurs = url.origin === location.origin && url.pathname.startsWith(`${BASE}/docs`);
  return isOurs && !url.pathname.endsWith("/signed-in") ? url.href : `${BASE}/docs`;
}

/** Leaves for the hub's own sign-in page: RFC 6749 section 4.1 with RFC 7636. `from` is where to come back to. */
export function beginSignIn(from) {
  if (HUB !== location.origin + BASE) {
    location.assign(`${REDIRECT}#${new URL(from).pathname}`); // known by another name: begin where it will end
    return;
  }
  const verifier = chance(32);
  const state = chance(16);
  sessionStorage.setItem(KEY_OF_SIGN_IN, JSON.stringify({ verifier, state, from }));
  const asked = {
    response_type: "code",
    client_id: CLIENT,
    redirect_uri: REDIRECT,
    code_challenge: asText(sha256(new TextEncoder().encode(verifier))),
    code_challenge_method: "S256",
    state,
  };
  location.assign(`${BASE}/api/v1/auth/authorize?${new URLSearchParams(asked)}`);
}

/** {email, from} once the code is exchanged. Throws an Error with a sentence for the reader. */
export async function endSignIn(answer) {
  const begun = JSON.parse(sessionStorage.getItem(KEY_OF_SIGN_IN));
  sessionStorage.removeItem(KEY_OF_SIGN_IN);
  if (!begun || answer.get("state") !== begun.state) throw new Error("This sign-in was not begun in this tab.");
  if (answer.has("error")) throw new Error(answer.get("error_description") ?? "Nobody was signed in.");
  const given = {
    grant_type: "authorization_code",
    code: answer.get("code"),
    redirect_uri: REDIRECT,
    client_id: CLIENT,
    code_verifier: begun.verifier,
  };
  const tokens = await told(fetch(`${BASE}/api/v1/auth/token`, { method: "POST", body: new URLSearchParams(given) }));
  const headers = { Authorization: `Bearer ${tokens.access_token}` };
  const me = await told(fetch(`${BASE}/api/v1/auth/me`, { headers }));
  keep(me.user.email, tokens);
  return { email: me.user.email, from: shownBefore(begun.from) };
}

async function told(asked) {
  const answer = await asked;
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.detail ?? said.error_description ?? `The hub answered ${answer.status}.`);
  return said;
}

export async function signOut() {
  const session = kept();
  forget();
  if (session) await post("logout", {}, session.access_token).catch(() => {});
}

/** A token that is good for a while yet; null where nobody is signed in. */
export async function accessToken() {
  const session = kept();
  if (!session) return null;
  if (session.expires_at - Date.now() > RENEWED_BEFORE_MS) return session.access_token;
  renewal ??= renewed(session).finally(() => (renewal = null));
  return renewal;
}

async function renewed(session) {
  const answer = await post("refresh", { refresh_token: session.refresh_token });
  if (answer.ok) {
    keep(session.email, await answer.json());
    return kept().access_token;
  }
  if (answer.status !== 401) return session.access_token; // the hub is busy: it says so of the call itself, too
  forget("Your session has ended. Sign in again.");
  return null;
}

/** fetch with the token of who is signed in, for calls to this hub. */
export async function fetchSignedIn(input, init) {
  const request = new Request(input, init);
  if (new URL(request.url).origin !== location.origin) return fetch(request);
  const token = await accessToken();
  if (token) request.headers.set("Authorization", `Bearer ${token}`);
  return fetch(request);
}
