// Who is signed in on the documentation pages. Kept in sessionStorage: it outlasts a reload and ends with the tab.

/** The path of the hub, "" or such as "/hub": this file lies at <hub>/docs/assets/session.js. */
export const BASE = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
const KEY = "data-fusion-hub";
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

/** Throws an Error with the hub's own sentence where it does not let the person in. */
export async function signIn(email, password) {
  const answer = await post("login", { email, password });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.detail ?? `The hub answered ${answer.status}.`);
  keep(email, said);
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
