// An identity provider of another maker: samlify. Started with the host that it is at, and files of its key and
// certificate; it prints its address and its metadata, and then answers until it is ended.
const http = require("http");
const fs = require("fs");
const modules = process.argv[2];
const [host, keyFile, certificateFile] = process.argv.slice(3);
const samlify = require(`${modules}/samlify`);

samlify.setSchemaValidator({ validate: async () => "not looked at here" });
const attributes = ["email", "firstName", "groups"];
const template = samlify.SamlLib.defaultLoginResponseTemplate.context;
const providerAt = (address) => samlify.IdentityProvider({
  entityID: `${address}/metadata`,
  privateKey: fs.readFileSync(keyFile, "utf8"),
  signingCert: fs.readFileSync(certificateFile, "utf8"),
  requestSignatureAlgorithm: "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
  isAssertionEncrypted: process.env.ENCRYPTED === "yes",
  messageSigningOrder: "sign-then-encrypt",
  dataEncryptionAlgorithm: "http://www.w3.org/2009/xmlenc11#aes256-gcm",
  keyEncryptionAlgorithm: "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p",
  wantAuthnRequestsSigned: true,
  nameIDFormat: ["urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"],
  singleSignOnService: [
    { Binding: "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect", Location: `${address}/sso` },
  ],
  loginResponseTemplate: {
    context: template,
    attributes: attributes.map((name) => ({
      name,
      valueTag: name,
      nameFormat: "urn:oasis:names:tc:SAML:2.0:attrname-format:basic",
      valueXsiType: "xs:string",
    })),
  },
});

const fill = (sp, requestId, person) => (text) => {
  const now = new Date();
  const until = new Date(now.getTime() + 300_000).toISOString();
  const acs = sp.entityMeta.getAssertionConsumerService("post");
  const id = `_${require("crypto").randomBytes(16).toString("hex")}`;
  const values = {
    ID: id,
    AssertionID: `${id}a`,
    Destination: acs,
    Audience: sp.entityMeta.getEntityID(),
    EntityID: sp.entityMeta.getEntityID(),
    SubjectRecipient: acs,
    AssertionConsumerServiceURL: acs,
    Issuer: idp.entityMeta.getEntityID(),
    IssueInstant: now.toISOString(),
    StatusCode: "urn:oasis:names:tc:SAML:2.0:status:Success",
    ConditionsNotBefore: now.toISOString(),
    ConditionsNotOnOrAfter: until,
    SubjectConfirmationDataNotOnOrAfter: until,
    NameIDFormat: "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
    NameID: person.id,
    InResponseTo: requestId,
    AuthnStatement: `<saml:AuthnStatement AuthnInstant="${now.toISOString()}" SessionIndex="${id}s"><saml:AuthnContext>`
      + "<saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"
      + "</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>",
    attrEmail: person.email,
    attrFirstName: person.firstName,
    attrGroups: person.groups,
  };
  return { id, context: samlify.SamlLib.replaceTagsByValue(text.replace("{AuthnStatement}", values.AuthnStatement), values) };
};

const person = { id: "samlify-ada", email: "ada@samlify.example.org", firstName: "Ada", groups: "mathematicians" };
let address, idp;
let sp = null;
const server = http.createServer(async (request, response) => {
  try {
    const url = new URL(request.url, address);
    if (url.pathname === "/favicon.ico") return response.writeHead(204).end();
    if (url.pathname === "/know") {
      sp = samlify.ServiceProvider({ metadata: url.searchParams.get("metadata") });
      return response.end("known");
    }
    const octetString = url.search.slice(1).split("&").filter((part) => !part.startsWith("Signature=")).join("&");
    const query = Object.fromEntries(url.searchParams);
    const { extract } = await idp.parseLoginRequest(sp, "redirect", { query, octetString });
    const answer = await idp.createLoginResponse(
      sp, { extract }, "post", person, fill(sp, extract.request.id, person), false, query.RelayState,
    );
    response.setHeader("content-type", "text/html");
    response.end(`<!doctype html><title>Samlify</title><p>Samlify knows you.<form method="post" action="${answer.entityEndpoint}">`
      + `<input type="hidden" name="SAMLResponse" value="${answer.context}">`
      + `<input type="hidden" name="RelayState" value="${query.RelayState}"><button>Continue</button></form>`);
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error && error.stack || error));
  }
});
server.listen(0, host, () => {
  address = `http://${host}:${server.address().port}`;
  idp = providerAt(address);
  process.stdout.write(`${address}\n${idp.getMetadata().replaceAll("\n", "")}\n`);
});
