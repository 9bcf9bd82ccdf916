// A program that knows the hub's address and nothing else: it discovers the rest, signs somebody in, refreshes, revokes,
// and signs in as a service account by secret and by key. What it learns it prints, a line of JSON for each step; the
// address to which the browser came back is read from standard input.
import { createInterface } from "node:readline";
import * as client from "openid-client";

const [issuer, clientId, clientSecret, redirectUri, accountId, apiKey, privateJwk, alg] = process.argv.slice(2);
const plainHttp = { algorithm: "oauth2", execute: [client.allowInsecureRequests] };
const say = (step) => console.log(JSON.stringify(step));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const config = await client.discovery(new URL(issuer), clientId, clientSecret, undefined, plainHttp);
const verifier = client.randomPKCECodeVerifier();
const state = client.randomState();
const address = client.buildAuthorizationUrl(config, {
  redirect_uri: redirectUri,
  scope: "api",
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
  state,
});
say({ address: address.href });

const callback = new URL((await lines.next()).value);
const checks = { pkceCodeVerifier: verifier, expectedState: state };
const mixedUp = new URL(callback);
mixedUp.searchParams.set("iss", "https://evil.example.org");
const refusal = await client.authorizationCodeGrant(config, mixedUp, checks).then(() => null, (error) => error);
const tokens = await client.authorizationCodeGrant(config, callback, checks);
const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token);
const me = await client.fetchProtectedResource(config, refreshed.access_token, new URL(`${issuer}/api/v1/auth/me`), "GET");
say({ mixedUp: refusal?.cause?.message, first: tokens.access_token, me: await me.json() });
await client.tokenRevocation(config, refreshed.refresh_token);
const gone = await client.refreshTokenGrant(config, refreshed.refresh_token).then(() => null, (error) => error);
say({ gone: gone?.error });

const bySecret = await client.discovery(new URL(issuer), accountId, apiKey, undefined, plainHttp);
const one = await client.clientCredentialsGrant(bySecret, { scope: "api" });
const format = { ES256: { name: "ECDSA", namedCurve: "P-256" }, EdDSA: { name: "Ed25519" } }[alg];
const key = await crypto.subtle.importKey("jwk", JSON.parse(privateJwk), format, false, ["sign"]);
const byKey = await client.discovery(new URL(issuer), accountId, undefined, client.PrivateKeyJwt(key), plainHttp);
const other = await client.clientCredentialsGrant(byKey);
say({ bySecret: one.access_token, byKey: other.access_token, expiresIn: other.expires_in });
