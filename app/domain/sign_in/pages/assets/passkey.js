// Asks the browser for a passkey, and sends what it says with the form. Without it the form takes codes as ever.
const button = document.getElementById("passkey");
const field = document.getElementById("credential");

async function show() {
  button.disabled = true;
  try {
    const options = PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(button.dataset.options));
    const credential = await navigator.credentials.get({ publicKey: options });
    field.value = JSON.stringify(credential.toJSON());
    field.form.submit();
  } catch {
    button.disabled = false; // it was called off, or there is none: the button is there to try again
  }
}

if (window.PublicKeyCredential?.parseRequestOptionsFromJSON) {
  button.hidden = false;
  button.addEventListener("click", show);
}
