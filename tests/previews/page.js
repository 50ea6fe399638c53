// Draws one dashboard: a small part of what Grafana does with the same model and the same answers.
const CELL = (1360 - 16) / 24, LINE = 32;
const PALETTE = ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442", "#8e939c"];
const { dashboard, answers, from, to } = LEFT;
const css = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

const make = (tag, parent, text, style) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  Object.assign(element.style, style);
  parent?.append(element);
  return element;
};
const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 16);
const answer = (panel, target) =>
  answers.find(({ place }) => place.endsWith(`/ ${panel.title} / ${target.refId}`))?.series ?? [];
const queried = (panel) => panel.targets.flatMap((target) =>
  answer(panel, target).map((series) => ({ ...series, target, name: legend(target, series) })));
const legend = ({ legendFormat }, { labels }) => legendFormat === "__auto"
  ? Object.entries(labels).map(([label, value]) => `${label}=${value}`).join(" ")
  : legendFormat.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? "");
// Where Prometheus has no value for a step there is a gap, as in Grafana.
const gapped = (points) => {
  const step = Math.min(...points.slice(1).map(([time], index) => time - points[index][0]));
  return points.flatMap(([time, value], index) => index && time - points[index - 1][0] > step * 1.5
    ? [[(points[index - 1][0] + step) * 1000, null], [time * 1000, value]] : [[time * 1000, value]]);
};
const last = ({ points }) => points.at(-1)?.[1];
const withOverrides = (panel, name) => {
  const field = structuredClone(panel.fieldConfig.defaults);
  for (const { matcher, properties } of panel.fieldConfig.overrides)
    if (matcher.options === name)
      for (const { id, value } of properties) {
        const keys = id.split(".");
        const inner = keys.length > 1 ? (field[keys[0]] ??= {}) : field;
        inner[keys.at(-1)] = value;
      }
  return field;
};

function formatted(value, field) {
  const decimals = (fallback) => field.decimals ?? fallback;
  const short = (number) => {
    for (const [size, letter] of [[1e9, " Bil"], [1e6, " Mil"], [1e3, " K"]])
      if (Math.abs(number) >= size) return `${(number / size).toFixed(decimals(2)).replace(/\.?0+$/, "")}${letter}`;
    return number.toFixed(decimals(Number.isInteger(number) ? 0 : number < 1 ? 3 : 1));
  };
  switch (field.unit) {
    case "percentunit": return `${(value * 100).toFixed(decimals(1))} %`;
    case "cps": return `${short(value)} c/s`;
    case "s": return value < 1e-3 ? `${(value * 1e6).toFixed(0)} µs` : `${(value * 1e3).toFixed(2)} ms`;
    case "bytes": return `${(value / 2 ** 20).toFixed(1)} MiB`;
    case "locale": return Math.round(value).toLocaleString("en");
    case "dateTimeFromNow": {
      const minutes = (to * 1000 - value) / 60000;
      return minutes < 1 ? "a few seconds ago" : minutes < 90 ? `${Math.round(minutes)} minutes ago` : `${Math.round(minutes / 60)} hours ago`;
    }
    default: return short(value);
  }
}
function mapped(value, field) {
  for (const mapping of field.mappings ?? []) {
    if (mapping.type === "value" && mapping.options[value]) return mapping.options[value];
    if (mapping.type === "range" && value >= mapping.options.from && (mapping.options.to === null || value <= mapping.options.to)) return mapping.options.result;
    if (mapping.type === "special" && (value === "" || value === undefined)) return mapping.options.result;
  }
}
function shown(value, field) {
  const mapping = mapped(value, field);
  const steps = field.thresholds?.steps ?? [];
  const step = steps.filter((one) => one.value === null || value >= one.value).at(-1);
  return { text: mapping?.text ?? (typeof value === "number" ? formatted(value, field) : value ?? ""), color: mapping?.color ?? step?.color ?? "#0072B2" };
}
const ink = (color) => {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return red * 0.299 + green * 0.587 + blue * 0.114 > 140 ? "#111" : "#fff";
};

function none(box, panel) {
  make("div", box, panel.fieldConfig.defaults.noValue).className = "none";
}

const draw = {
  stat(box, panel) {
    const found = queried(panel);
    const filled = panel.options.colorMode === "background";
    const place = make("div", box);
    place.className = found.length > 2 ? "stat small" : "stat";
    const values = found.length ? found.map((series) => [series.name, shown(last(series), withOverrides(panel, series.name))])
      : [["", { text: panel.fieldConfig.defaults.noValue, color: panel.fieldConfig.defaults.thresholds.steps[0].color, none: true }]];
    for (const [name, { text, color, none }] of values) {
      const one = make("div", place);
      if (panel.options.textMode === "value_and_name") make("span", one, name);
      const calm = none && (text === "none" || !filled) ? "#0072B2" : color;
      make("b", one, text, { color: filled ? ink(calm) : none ? css("--faint") : THEME === "dark" && color === "#0072B2" ? "#4aa3dd" : color, fontSize: text.length > 12 ? "16px" : "" });
      if (filled) { box.style.background = none && text !== "none" ? css("--panel") : calm; if (!none || text === "none") box.style.color = ink(calm); }
    }
  },
  table(box, panel) {
    const [include, organize] = ["filterFieldsByName", "organize"].map((id) => panel.transformations.find((one) => one.id === id).options);
    const columns = include.include.names;
    const single = panel.targets.length === 1;
    let rows = [];
    for (const target of panel.targets) {
      const value = single ? "Value" : `Value #${target.refId}`;
      for (const { labels, points } of answer(panel, target)) {
        const fields = { ...labels, [value]: points.at(-1)[1] };
        const same = rows.filter((row) => Object.keys(labels).every((label) => !(label in row) || row[label] === labels[label]) && !(value in row));
        if (same.length) same.forEach((row) => Object.assign(row, fields)); else rows.push(fields);
      }
    }
    if (!rows.length) return none(box, panel);
    const title = (column) => organize.renameByName[column] ?? column;
    const sort = panel.options.sortBy[0] && columns.find((column) => title(column) === panel.options.sortBy[0].displayName);
    if (sort) rows.sort((one, other) => (other[sort] ?? -1) - (one[sort] ?? -1));
    const table = make("table", box), head = make("tr", table);
    columns.forEach((column) => make("th", head, title(column)));
    for (const row of rows.slice(0, Math.floor((panel.gridPos.h * LINE - 60) / 25))) {
      const line = make("tr", table);
      for (const column of columns) {
        const field = withOverrides(panel, title(column));
        const raw = row[column];
        const numeric = column.startsWith("Value");
        const { text, color } = raw === undefined && numeric ? { text: "" } : shown(raw, field);
        const cell = make("td", line), options = field.custom?.cellOptions ?? {};
        if (options.type === "gauge" && raw !== undefined) {
          const most = field.max ?? Math.max(...rows.map((other) => other[column] ?? 0));
          const gauge = make("div", cell); gauge.className = "gauge";
          make("i", make("s", gauge), "", { display: "block", width: `${(100 * raw) / (most || 1)}%`, background: color });
          gauge.append(text);
        } else if (options.type === "color-background" && color && color !== "transparent" && text !== "") {
          cell.textContent = text; Object.assign(cell.style, { background: color, color: ink(color) });
        } else if (field.links?.length) make("a", cell, text);
        else if (options.type === "color-text") { cell.textContent = text; cell.style.color = color; }
        else { cell.textContent = text; if (mapped(raw, field)) cell.style.color = field.mappings[0].type === "special" ? (THEME === "dark" ? "#ff8a3d" : color) : css("--faint"); }
      }
    }
  },
  bargauge(box, panel) {
    const found = queried(panel).map((series) => [series.name, last(series)]).sort((one, other) => other[1] - one[1]);
    if (!found.length) return none(box, panel);
    const bars = make("div", box); bars.className = "bars";
    const most = Math.max(...found.map(([, value]) => value));
    for (const [name, value] of found) {
      const { text, color } = shown(value, panel.fieldConfig.defaults);
      make("span", bars, name);
      make("i", make("s", bars), "", { width: `${(100 * value) / most}%`, background: color });
      make("b", bars, text);
    }
  },
  "state-timeline"(box, panel) {
    const found = queried(panel);
    if (!found.length) return none(box, panel);
    const lanes = make("div", box); lanes.className = "lanes";
    const step = Math.min(...found.flatMap(({ points }) => points.slice(1).map(([time], index) => time - points[index][0])));
    const states = new Map();
    for (const { name, points } of found) {
      make("span", lanes, name);
      const lane = make("div", lanes);
      for (let start = 0; start < points.length;) {
        let end = start;
        while (end + 1 < points.length && points[end + 1][1] === points[start][1] && points[end + 1][0] - points[end][0] < step * 1.5) end += 1;
        const { text, color } = shown(points[start][1], panel.fieldConfig.defaults);
        states.set(text, color);
        const share = (time) => (100 * (time - from)) / (to - from);
        const left = share(points[start][0]), width = Math.min(share(points[end][0] + step), 100) - left;
        const label = panel.options.showValue === "never" || width < 6 ? "" : text;
        make("i", lane, label, { left: `${left}%`, width: `${width}%`, background: color, color: ink(color) });
        start = end + 1;
      }
    }
    make("span", lanes);
    const axis = make("div", lanes, undefined, { background: "none" }); axis.className = "axis";
    for (let part = 0; part <= 6; part += 1) make("span", axis, clock(from + ((to - from) * part) / 6));
    const key = make("div", box); key.className = "key";
    for (const [text, color] of states) { make("em", key, "", { background: color }); key.append(text); }
  },
  timeseries(box, panel) {
    const found = queried(panel);
    if (!found.length) return none(box, panel);
    const stacked = panel.fieldConfig.defaults.custom.stacking.mode === "normal";
    const place = make("div", box); place.className = "chart";
    const fields = panel.fieldConfig.defaults;
    echarts.init(place, null, { renderer: "svg" }).setOption({
      animation: false, textStyle: { fontFamily: "DejaVu Sans" },
      grid: { left: 8, right: 12, top: 8, bottom: 26, containLabel: true },
      legend: { bottom: 0, left: 0, icon: "roundRect", itemWidth: 12, itemHeight: 4, textStyle: { color: css("--text"), fontSize: 11 } },
      xAxis: { type: "time", min: from * 1000, max: to * 1000, axisLabel: { color: css("--faint"), formatter: (ms) => clock(ms / 1000) }, axisLine: { lineStyle: { color: css("--line") } } },
      yAxis: { type: "value", min: 0, max: fields.max, axisLabel: { color: css("--faint"), formatter: (value) => formatted(value, fields) }, splitLine: { lineStyle: { color: css("--line") } } },
      series: found.map(({ name, points }, index) => {
        const color = withOverrides(panel, name).color?.fixedColor ?? PALETTE[index % PALETTE.length];
        return { type: "line", name, step: "end", symbol: "none", color, lineStyle: { width: stacked ? 0 : 2 }, areaStyle: stacked ? { opacity: 0.8 } : { opacity: 0.06 },
          stack: stacked ? "all" : undefined, data: gapped(points) };
      }),
    });
  },
  heatmap(box, panel) {
    const found = queried(panel).sort((one, other) => Number(one.name) - Number(other.name));
    const times = [...new Set(found.flatMap(({ points }) => points.map(([time]) => time)))].sort((one, other) => one - other);
    const cells = found.flatMap(({ points }, row) => points.filter(([, value]) => value > 1e-9).map(([time, value]) => [times.indexOf(time), row, value]));
    if (!cells.length) return none(box, panel);
    const most = Math.max(...cells.map(([, , value]) => value));
    const place = make("div", box); place.className = "chart";
    const { fill, exponent } = panel.options.color;
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(fill.slice(at, at + 2), 16));
    const shade = (part) => `rgba(${red},${green},${blue},${part ** exponent})`;
    echarts.init(place).setOption({
      animation: false, textStyle: { fontFamily: "DejaVu Sans" },
      grid: { left: 8, right: 8, top: 4, bottom: 34, containLabel: true },
      xAxis: { type: "category", data: times.map(clock), axisLabel: { color: css("--faint"), interval: Math.floor(times.length / 7) }, axisTick: { show: false } },
      yAxis: { type: "category", data: found.map(({ name }) => name), axisLabel: { color: css("--faint"), interval: 7 }, axisTick: { show: false } },
      visualMap: { min: 0, max: most, dimension: 2, orient: "horizontal", left: "center", bottom: 0, itemHeight: 160, itemWidth: 9, text: [formatted(most, panel.fieldConfig.defaults), "0"], textStyle: { color: css("--faint") }, inRange: { color: [...Array(33).keys()].map((part) => shade(part / 32)) } },
      series: [{ type: "heatmap", data: cells, itemStyle: { borderWidth: 1, borderColor: css("--panel") } }],
    });
  },
};
draw["status-history"] = draw["state-timeline"];

const header = make("header", document.body);
make("b", header, dashboard.title);
make("i", header, dashboard.description);
make("u", header, "Preview: answers of a real Prometheus to the dashboard's queries, not drawn by Grafana");
const main = make("main", document.body);
for (const panel of dashboard.panels) {
  const { x, y, w, h } = panel.gridPos;
  const box = make("div", main, undefined, { left: `${x * CELL + 2}px`, top: `${y * LINE + 2}px`, width: `${w * CELL - 4}px`, height: `${h * LINE - 4}px` });
  box.className = panel.type === "row" ? "panel row" : "panel";
  if (panel.type === "row") { box.textContent = `▾ ${panel.title}`; continue; }
  make("h2", box, panel.title);
  draw[panel.type](box, panel);
}
