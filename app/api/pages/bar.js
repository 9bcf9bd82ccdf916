// The bar above every documentation page: signing in and out.
import { onSession, signIn, signOut } from "{session.js}";

const place = document.getElementById("session");
const form = document.getElementById("sign-in");
const said = document.getElementById("said");
const who = document.getElementById("who");

onSession((session, reason) => {
  place.classList.toggle("signed-in", Boolean(session));
  who.textContent = session ? session.email : "";
  said.textContent = reason;
  form.parentElement.open = Boolean(reason);
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  said.textContent = "";
  form.inert = true;
  try {
    await signIn(form.elements.email.value, form.elements.password.value);
    form.reset();
  } catch (error) {
    said.textContent = error.message;
  } finally {
    form.inert = false;
  }
});

document.getElementById("sign-out").addEventListener("click", signOut);
