import { accessToken, BASE, beginSignIn, CLIENT, onSession } from "{session.js}";

const dark = matchMedia("(prefers-color-scheme: dark)");
const showDark = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", showDark);
showDark();

const ui = SwaggerUIBundle({
  url: `${BASE}/openapi.json`,
  dom_id: "#page",
  deepLinking: true,
  docExpansion: "list",
  persistAuthorization: false,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [{ statePlugins: { auth: { wrapActions: { authPopup: () => () => beginSignIn(location.href) } } } }],
  async requestInterceptor(request) {
    const token = request.loadSpec ? null : await accessToken();
    if (token) request.headers.Authorization = `Bearer ${token}`;
    return request;
  },
  onComplete() {
    let isShown = false; // Swagger UI cannot sign out whom it has not signed in
    onSession((session) => {
      if (session) ui.preauthorizeApiKey("bearer", session.token);
      else if (isShown) ui.authActions.logout(["bearer"]);
      isShown = Boolean(session);
    });
  },
});
ui.initOAuth({ clientId: CLIENT, usePkceWithAuthorizationCodeGrant: true });
