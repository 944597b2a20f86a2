// One key gives an answer, where the page asks one question. Buttons do the same without this file.
"use strict";

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const forms = document.querySelectorAll("form[data-feedback]");
  if (forms.length !== 1) return; // several patients: a key would not say which
  const wanted = event.key.toLowerCase();
  const button = [...forms[0].querySelectorAll("button[data-key]")].find((each) => each.dataset.key === wanted);
  if (!button) return;
  event.preventDefault();
  button.click();
});
