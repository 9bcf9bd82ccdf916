// The one form of the page is sent at once; where scripts do not run, its button does it.
document.querySelector("form").submit();
