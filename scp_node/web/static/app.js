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

// A table that is wider than its place is scrolled by the arrow keys as well: it takes the focus, and only then.
function reachable(root) {
  for (const place of root.querySelectorAll("[class*=scroll]")) {
    if (place.scrollWidth > place.clientWidth) place.tabIndex = 0;
    else place.removeAttribute("tabindex");
  }
}

addEventListener("resize", () => reachable(document));
document.addEventListener("htmx:load", (event) => reachable(event.target.parentElement ?? document));

// A link that logs in holds its token behind the "#", which no server and no log sees.
const fromFragment = document.querySelector("[data-from-fragment]");
if (fromFragment && location.hash.length > 1) {
  fromFragment.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
}
