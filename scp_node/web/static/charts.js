// The charts of days: one request for the numbers, one uPlot for each chart. The page's table of numbers is /api/v1.
"use strict";

(() => {
  const place = document.querySelector("[data-days]");
  if (!place) return;

  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const charts = [];
  const reasonNames = JSON.parse(place.dataset.reasons);
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]; // there is no half of a film

  const seconds = (value) => {
    if (value < 60) return `${value.toPrecision(2)} s`;
    return value < 3600 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
  };
  const percent = (value) => `${(100 * value).toFixed(1)} %`;

  // Every day of the range has a place, so that a day without films is a gap and not a bridge.
  const filled = (answer) => {
    const known = new Map(answer.days.map((each) => [each.day, each]));
    const rows = [];
    const last = Date.parse(`${answer.last}T00:00:00Z`);
    for (let at = Date.parse(`${answer.first}T00:00:00Z`); at <= last; at += 86400000) {
      rows.push([at / 1000, known.get(new Date(at).toISOString().slice(0, 10)) ?? null]);
    }
    return rows;
  };

  const draw = (name, x, series, format, options = {}) => {
    const box = place.querySelector(`[data-chart="${name}"]`);
    if (!box) return;
    const axis = { stroke: token("--soft"), grid: { stroke: token("--line"), width: 1 }, ticks: { stroke: token("--line") } };
    const chart = new uPlot(
      {
        width: box.clientWidth,
        height: 220,
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
        scales: { x: { time: true }, y: options.log ? { distr: 3 } : { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        axes: [axis, { ...axis, size: 76, ...(options.whole ? { incrs: WHOLE } : {}), values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : format(tick))) }],
        series: [
          { label: "day", value: (_, at) => (at === null ? "" : new Date(at * 1000).toISOString().slice(0, 10)) },
          ...series.map((each) => ({
            label: each.label,
            stroke: token(each.colour),
            width: each.thin ? 1 : 2,
            dash: each.dash,
            points: { show: x.length < 62, size: 5 },
            value: (_, value) => (value === null || value === undefined ? "" : format(value)),
          })),
        ],
      },
      [x, ...series.map((each) => each.values)],
      box,
    );
    charts.push([chart, box]);
  };

  const show = (answer) => {
    const rows = filled(answer);
    const x = rows.map(([at]) => at);
    const of = (pick, missing) => rows.map(([, day]) => (day ? pick(day) : missing));
    const outcome = (name) => of((day) => day.outcomes[name] ?? 0, 0);
    const count = (value) => String(Math.round(value * 10) / 10);
    draw("volume", x, [
      { label: "received", colour: "--text", values: of((day) => day.received, 0) },
      { label: "positive", colour: "--positive", values: outcome("present") },
      { label: "negative", colour: "--negative", values: outcome("not-detected") },
      { label: "not analysed", colour: "--soft", values: outcome("not-analysed"), dash: [6, 4] },
      { label: "failed", colour: "--error", values: outcome("failed"), dash: [2, 3] },
    ], count, { whole: true });
    draw("positive", x, [
      { label: "positive rate", colour: "--positive", values: of((day) => day.positive_rate, null) },
      { label: "its interval from", colour: "--soft", thin: true, dash: [4, 4], values: of((day) => day.positive_rate_low, null) },
      { label: "to", colour: "--soft", thin: true, dash: [4, 4], values: of((day) => day.positive_rate_high, null) },
    ], percent);
    const totals = new Map();
    for (const day of answer.days) {
      for (const [name, number] of Object.entries(day.not_analysed)) totals.set(name, (totals.get(name) ?? 0) + number);
    }
    const colours = ["--positive", "--negative", "--link", "--error", "--unsure"];
    const reasons = [...totals.entries()].sort((a, b) => b[1] - a[1]).slice(0, colours.length).map(([name]) => name);
    draw("reasons", x, reasons.map((name, index) => ({
      label: reasonNames[name] ?? name, colour: colours[index], values: of((day) => day.not_analysed[name] ?? 0, 0),
    })), count, { whole: true });
    draw("times", x, [
      { label: "half within", colour: "--link", values: of((day) => day.median_seconds, null) },
      { label: "95 % within", colour: "--positive", values: of((day) => day.p95_seconds, null), dash: [6, 4] },
    ], seconds, { log: true });
  };

  const redraw = (answer) => {
    while (charts.length) charts.pop()[0].destroy();
    show(answer);
  };

  fetch(place.dataset.days, { headers: { Accept: "application/json" } })
    .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`status ${response.status}`))))
    .then((answer) => {
      show(answer);
      new MutationObserver(() => redraw(answer)).observe(document.documentElement, { attributeFilter: ["data-theme"] });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(answer));
      let width = innerWidth;
      addEventListener("resize", () => {
        if (innerWidth === width) return;
        width = innerWidth;
        for (const [chart, box] of charts) chart.setSize({ width: box.clientWidth, height: 220 });
      });
    })
    .catch((error) => {
      for (const box of place.querySelectorAll("[data-chart]")) box.textContent = `The numbers did not come: ${error.message}.`;
    });
})();
