// Draws dashboards in Chromium: a JSON document on stdin says which, one on stdout tells what is amiss.
//
// In: `{ "prometheus": address, "scrapeInterval": "15s", "from": ms, "to": ms, "width": pixels,
//        "boards": [{ "name": …, "board": the dashboard, "picture": path of the PNG }] }`
// Out: `[{ "name": …, "findings": [{ "kind", "where", "detail" }] }]`

import { readFile } from "node:fs/promises";
import path from "node:path";
import { chromium } from "playwright-core";

const HERE = path.dirname(new URL(import.meta.url).pathname);
const SITE = "http://dashboards.invalid"; // every request to it is answered below
const PACKAGES = path.join(HERE, "node_modules");
const FONTS = path.join(PACKAGES, "@fontsource-variable/inter/files");
const ICONS = path.join(PACKAGES, "@grafana/ui/dist/public/img/icons");
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};

function fileOf(url) {
  const { pathname } = new URL(url);
  if (pathname.startsWith("/public/build/img/icons/")) {
    return path.join(ICONS, pathname.slice("/public/build/img/icons/".length));
  }
  if (pathname.startsWith("/public/fonts/")) {
    return path.join(FONTS, "inter-latin-wght-normal.woff2"); // of every weight
  }
  return path.join(HERE, "site", pathname);
}

async function answer(route, prometheus) {
  const url = route.request().url();
  if (!url.startsWith(SITE)) {
    return route.abort();
  }
  if (url.startsWith(`${SITE}/prometheus/`)) {
    return route.fulfill({ response: await route.fetch({ url: prometheus + url.slice(`${SITE}/prometheus`.length) }) });
  }
  const file = fileOf(url);
  return route.fulfill({ body: await readFile(file), contentType: TYPES[path.extname(file)] });
}

// Tables draw only what is in sight: the window is as high as the page.
function heightOf(board) {
  return 200 + Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * 38;
}

async function draw(browser, input, { name, board, picture }) {
  const page = await browser.newPage({ viewport: { width: input.width, height: heightOf(board) } });
  const findings = [];
  const say = (kind, detail) => findings.push({ kind, where: "page", detail });
  page.on("console", (message) => message.type() === "error" && say("console error", message.text()));
  page.on("pageerror", (error) => say("page error", error.message));
  page.on("requestfailed", (request) => say("request failed", request.url()));
  await page.route("**/*", (route) => answer(route, input.prometheus));
  await page.goto(`${SITE}/index.html`);
  const { from, to, scrapeInterval, width } = input;
  findings.unshift(
    ...(await page.evaluate((one) => window.drawBoard(one), {
      board,
      prometheus: `${SITE}/prometheus`,
      from,
      to,
      scrapeInterval,
      width,
    }))
  );
  await page.waitForLoadState("networkidle");
  await page.locator("#board").screenshot({ path: picture });
  await page.close();
  return { name, findings };
}

const chunks = [];
for await (const chunk of process.stdin) {
  chunks.push(chunk);
}
const input = JSON.parse(Buffer.concat(chunks));
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox"], // root has none, and the page is our own
});
try {
  const drawn = [];
  for (const board of input.boards) {
    drawn.push(await draw(browser, input, board));
  }
  process.stdout.write(JSON.stringify(drawn));
} finally {
  await browser.close();
}
