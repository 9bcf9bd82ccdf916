// An OpenID provider as others make them: `node provider.js <port> <callback> <logout> <accounts.json> <key id>`.
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { Provider } from "oidc-provider";

const [port, callback, logout, accounts, kid] = process.argv.slice(2);
const key = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" });
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...key, kid, use: "sig", alg: "RS256" }] },
  clients: [
    {
      client_id: "hub",
      client_secret: "a secret of the browser tests",
      redirect_uris: [callback],
      backchannel_logout_uri: logout,
      backchannel_logout_session_required: true,
    },
  ],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["given_name", "family_name"], groups: ["groups"] },
  scopes: ["openid", "email", "profile", "groups"],
  features: { backchannelLogout: { enabled: true }, devInteractions: { enabled: true } },
  cookies: { keys: ["of the browser tests"] },
  // Without its own guard, which lets nothing go to this machine.
  fetch: (url, options) => fetch(url, { ...options, dispatcher: undefined }),
  findAccount(_, id) {
    const known = JSON.parse(readFileSync(accounts, "utf-8"))[id] ?? {};
    return { accountId: id, claims: () => ({ sub: id, email: `${id}@example.org`, email_verified: true, ...known }) };
  },
});
provider.listen(Number(port), "127.0.0.1");
