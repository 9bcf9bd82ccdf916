// Where the hub's sign-in page sends a browser back to the documentation: with a code that is worth tokens once.
import { beginSignIn, endSignIn, shownBefore } from "{session.js}";

const page = document.getElementById("page");
const answer = new URLSearchParams(location.search);
history.replaceState(null, "", location.pathname + location.hash); // a code has no business in the browser's history

function say(text, link, target) {
  const notice = document.createElement("main");
  const told = document.createElement("p");
  notice.className = "notice";
  notice.setAttribute("role", "status");
  told.textContent = text;
  const anchor = document.createElement("a");
  anchor.href = target;
  anchor.textContent = link;
  notice.append(told, anchor);
  page.replaceChildren(notice);
}

if (answer.has("code") || answer.has("error")) {
  try {
    const { email, from } = await endSignIn(answer);
    say(`You are signed in as ${email}.`, "Go on", from);
    location.replace(from);
  } catch (error) {
    say(error.message, "Back to the documentation", shownBefore());
  }
} else {
  beginSignIn(shownBefore(location.hash.slice(1)));
}
