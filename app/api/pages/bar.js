// The bar above every documentation page: signing in and out.
import { beginSignIn, onSession, signOut } from "{session.js}";

const place = document.getElementById("session");
const said = document.getElementById("said");
const who = document.getElementById("who");

onSession((session, reason) => {
  place.classList.toggle("signed-in", Boolean(session));
  who.textContent = session ? session.email : "";
  said.textContent = reason;
});

document.getElementById("sign-in").addEventListener("click", () => beginSignIn(location.href));
document.getElementById("sign-out").addEventListener("click", signOut);
