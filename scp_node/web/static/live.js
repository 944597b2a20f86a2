// A part of a page that renews itself: [data-live]. It does not move what the mouse is on, does not take away what has
// the focus or is marked, and says when it has got no answer for a while.
"use strict";

const STALE_AFTER = 20000; // ms
const mouse = { x: -1, y: -1 };
let answeredAt = Date.now();
let anchor = null;
let opened = [];

document.addEventListener("mousemove", (event) => {
  mouse.x = event.clientX;
  mouse.y = event.clientY;
});

// What the person is about to use stays as it is.
function isHeld(part) {
  const used = "a:hover, button:hover, summary:hover, input:hover, select:hover, a:focus, button:focus, summary:focus";
  const marked = getSelection();
  return part.querySelector(used) !== null || (!marked.isCollapsed && part.contains(marked.anchorNode));
}

function under(part) {
  const found = document.elementFromPoint(mouse.x, mouse.y)?.closest("[id]");
  return found && found !== part && part.contains(found) ? found : null;
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const part = event.detail.target;
  if (!part.matches("[data-live]") || event.detail.xhr.status !== 200) return;
  answeredAt = Date.now();
  if (isHeld(part)) {
    event.detail.shouldSwap = false;
    return;
  }
  const found = under(part);
  anchor = found && { id: found.id, top: found.getBoundingClientRect().top };
  opened = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (!event.detail.target.matches("[data-live]")) return;
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  const again = anchor && document.getElementById(anchor.id);
  if (again) scrollBy(0, again.getBoundingClientRect().top - anchor.top);
  anchor = null;
});

setInterval(() => {
  const told = document.querySelector("[data-live-stale]");
  if (told) told.hidden = Date.now() - answeredAt < STALE_AFTER;
}, 1000);
