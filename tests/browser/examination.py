"""What is wrong with a page as it stands in a browser, whatever page it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.browser.screen import Screen
from tests.npm import AXE, required

GRAVE: Final = ("serious", "critical")  # of axe's four
MOST_BYTES: Final = 150_000  # over the wire, without films

_AXE: Final = """async rules => {
  const only = rules ? {runOnly: {type: "rule", values: rules}} : {};
  const found = await axe.run(document, {resultTypes: ["violations"], preload: false, ...only});
  return found.violations.flatMap(each => each.nodes.map(node =>
    ({rule: each.id, impact: node.impact ?? each.impact, where: node.html.slice(0, 200), why: node.failureSummary})));
}"""
_WIDER_THAN_ITS_WINDOW: Final = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const wide = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > width + 1);
  return ["scrolls sideways: " + wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join(" ... ")];
}"""
_UNLABELLED: Final = """() => [...document.querySelectorAll("input:not([type=hidden]):not([hidden]), select, textarea")]
  .filter(e => !e.labels?.length && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby"))
  .map(e => "has no label: " + e.outerHTML.slice(0, 200))"""
_REACHABLE: Final = "a[href], button, input, select, textarea, summary, [tabindex='0']"
_FOCUS_UNSEEN: Final = """reachable => [...document.querySelectorAll(reachable)]
  .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.type !== "hidden")
  .filter(e => {
    e.focus();
    const style = getComputedStyle(e);
    return document.activeElement !== e || style.outlineStyle === "none" || parseFloat(style.outlineWidth) === 0;
  })
  .map(e => "does not show the keyboard's focus: " + e.outerHTML.slice(0, 200))"""
_FOREIGN_MARKUP: Final = """() => {
  const ours = e => e.src.startsWith(`${location.origin}/static/`);
  const scripts = [...document.scripts].filter(e => !ours(e));
  const others = [...document.querySelectorAll("iframe, object, embed, base, style, img[src='x'], svg[onload]")];
  const acts = e => [...e.attributes].some(a => /^on|^style$/.test(a.name)) && !e.matches("canvas, .uplot, .uplot *");
  return [...scripts, ...others, ...[...document.querySelectorAll("*")].filter(acts)]
    .map(e => "is no markup of ours: " + e.outerHTML.slice(0, 200));
}"""


def barriers(screen: Screen, rules: Sequence[str] = ()) -> list[str]:
    """Return what axe-core finds grave, as the page is shown now: by some of its rules, or by all."""
    if not screen.run("typeof axe === 'object'"):
        screen.run(required(AXE).read_text(encoding="utf-8"))
    found = screen.run(_AXE, list(rules) or None)
    return [f"{each['rule']}: {each['where']}: {each['why']}" for each in found if each["impact"] in GRAVE]


def overflow(screen: Screen) -> list[str]:
    """Return what makes the window scroll sideways."""
    return list(screen.run(_WIDER_THAN_ITS_WINDOW))


def unlabelled(screen: Screen) -> list[str]:
    """Return the controls of forms that have no label."""
    return list(screen.run(_UNLABELLED))


def without_visible_focus(screen: Screen) -> list[str]:
    """Return what the keyboard reaches without a sign; the keyboard was used last, so that the focus is its own."""
    screen.page.keyboard.press("Tab")
    return list(screen.run(_FOCUS_UNSEEN, _REACHABLE))


def foreign_markup(screen: Screen) -> list[str]:
    """Return the elements and attributes that no template of ours makes: they came with a value."""
    return list(screen.run(_FOREIGN_MARKUP))


def overweight(screen: Screen) -> list[str]:
    """Return what came over the wire, if it is too much."""
    return [f"{screen.weight()} bytes: {screen.weights()}"] if screen.weight() > MOST_BYTES else []
