// What every page needs: the switch between dark and light, and the keyboard in what scrolls. Everything else works
// without this file.
"use strict";

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-theme-switch]");
  if (!button) return;
  const root = document.documentElement;
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `theme=${root.dataset.theme}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
});

// A table that is wider than its place is scrolled by the arrow keys as well: its place takes the focus, and only then.
// Either may change its size without the window: a part comes, a scrollbar takes room.
const scrolling = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    const place = target.closest("[class*=scroll]");
    if (!target.isConnected) scrolling.unobserve(target);
    else if (place.scrollWidth > place.clientWidth) place.tabIndex = 0;
    else place.removeAttribute("tabindex");
  }
});

document.addEventListener("htmx:load", (event) => {
  for (const place of (event.target.parentElement ?? document).querySelectorAll("[class*=scroll]")) {
    scrolling.observe(place);
    for (const part of place.children) scrolling.observe(part);
  }
});

// A link that logs in holds its token behind the "#", which no server and no log sees.
const fromFragment = document.querySelector("[data-from-fragment]");
if (fromFragment && location.hash.length > 1) {
  fromFragment.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
}
