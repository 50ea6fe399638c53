// draw.mjs SCRATCH DASHBOARD THEME OUTPUT: one dashboard as a picture. SCRATCH has answers/DASHBOARD.json, as tests/live.rs leaves
// them, and node_modules. With EMPTY=1 in the environment every answer is taken as empty, to look at the texts for that.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

const [scratch, name, theme, output] = process.argv.slice(2);
const here = path.dirname(new URL(import.meta.url).pathname);
const left = JSON.parse(readFileSync(path.join(scratch, "answers", `${name}.json`), "utf8"));
if (process.env.EMPTY) left.answers.forEach((answer) => (answer.series = []));

const width = 1360;
const rows = Math.max(...left.dashboard.panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
const height = rows * 32 + 64;
const read = (file) => readFileSync(file, "utf8");
const page = `<!doctype html><meta charset="utf-8"><style>${read(path.join(here, "page.css"))}</style>
<body class="${theme}"><script>${read(path.join(scratch, "node_modules/echarts/dist/echarts.min.js"))}</script>
<script>const LEFT = ${JSON.stringify(left).replaceAll("<", "\\u003c")}, THEME = "${theme}";
${read(path.join(here, "page.js"))}</script></body>`;
const file = path.join(scratch, `${name}-${theme}.html`);
writeFileSync(file, page);

execFileSync("chromium", [
  "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000",
  `--user-data-dir=${path.join(scratch, "chromium")}`, `--window-size=${width},${height}`,
  `--screenshot=${path.resolve(output)}`, `file://${file}`,
], { stdio: "ignore" });
console.log(`${output}: ${Math.round(readFileSync(output).length / 1024)} kB`);
