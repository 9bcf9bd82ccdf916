import { BASE, fetchSignedIn } from "{session.js}";

Scalar.createApiReference("#page", {
  url: `${BASE}/openapi.json`,
  customFetch: fetchSignedIn,
  withDefaultFonts: false,
  hideClientButton: true,
  defaultOpenAllTags: true,
  telemetry: false,
  proxyUrl: "",
  showDeveloperTools: "never",
  agent: { disabled: true },
  mcp: { disabled: true },
  persistAuth: false,
});
