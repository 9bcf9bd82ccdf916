import { init } from "{redoc.js}";
import { BASE } from "{session.js}";

init(`${BASE}/openapi.json`, { disableTelemetry: true }, document.getElementById("page"));
