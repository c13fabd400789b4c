"use strict";
// Polls what otocod shows and puts it into the page: every text as text, never as markup.

const POLL_MS = 1000;
const WAIT_MS = 8000;
const byId = (id) => document.getElementById(id);

function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((each) => each !== null && each !== undefined));
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function replaceIfChanged(node, key, make) {
  if (node.madeOf === key) return;
  node.madeOf = key;
  node.replaceChildren(...make());
}

// Words.

const MARKS = { good: "M4.5 0a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9", warn: "M4.5 0L9 9H0Z", bad: "M0 0H9V9H0Z", idle: "M0 3.5H9V5.5H0Z" };

const mark = (tone) => svg("svg", { class: "mark", viewBox: "0 0 9 9", "aria-hidden": "true" }, svg("path", { d: MARKS[tone] ?? MARKS.idle }));
const pill = (tone, text) => el("span", { class: `pill ${tone}` }, mark(tone), text);

function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(2)} s`;
  const minutes = Math.floor(value / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(value % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const price = (text) => (text === null || text === undefined ? "" : Number(text).toFixed(Math.max(2, (text.split(".")[1] ?? "").length)));
const signed = (text) => (text === null || text === undefined ? "" : `${Number(text) > 0 ? "+" : ""}${price(text)}`.replace("-", "−"));

function net(text) {
  if (!text) return "";
  return text.startsWith("-") ? `${price(text.slice(1))} credit` : `${price(text)} debit`;
}

function when(iso) {
  if (!iso) return "";
  const at = new Date(iso);
  const isToday = at.toDateString() === new Date().toDateString();
  const time = clock(at, true);
  return isToday ? time : `${at.toLocaleDateString([], { month: "short", day: "numeric" })}, ${time}`;
}

const OUTCOMES = {
  TARGET_FILLED: ["good", "target filled"],
  STOP_FILLED: ["warn", "stop filled"],
  ENTRY_NOT_FILLED: ["idle", "entry not filled"],
  CLOSED_BY_OPERATOR: ["idle", "closed by an operator"],
  CLOSED_OUTSIDE: ["idle", "closed outside"],
  TIME_EXIT: ["idle", "time exit"],
  EXPIRED: ["idle", "expired"],
  RELEASED: ["idle", "released"],
  DOUBLE_EXIT: ["bad", "both exits filled"],
};

const link = (bracket, ...children) => el("a", { href: `#/b/${encodeURIComponent(bracket.bracket_id)}` }, ...children);

function profit(bracket) {
  if (bracket.profit === null || bracket.profit === undefined) return [];
  const tone = Number(bracket.profit) < 0 ? "bad" : Number(bracket.profit) > 0 ? "good" : "idle";
  const main = bracket.profit_dollars === null ? signed(bracket.profit) : `${signed(bracket.profit_dollars)} $`;
  const under = bracket.profit_dollars === null ? "a unit" : `${signed(bracket.profit)} a unit`;
  return [el("span", { class: tone }, main), el("span", { class: "under" }, under)];
}

// From the stop, left, to the target, right: where the market is and where it began.
function gauge(bracket) {
  if (bracket.place === undefined) {
    if (bracket.to_entry !== undefined && bracket.to_entry !== null) {
      return [el("span", {}, Number(bracket.to_entry) > 0 ? `${price(bracket.to_entry)} to the entry` : "at the entry"), el("span", { class: "under" }, "quotes live")];
    }
    return bracket.quotes ? [el("span", { class: bracket.quotes.tone === "warn" ? "warn" : "quiet" }, bracket.quotes.text)] : [];
  }
  const at = (share) => 6 + share * 188;
  const begun = bracket.entry_place;
  const words = `between the stop, ${bracket.stop}, and the target, ${bracket.target}: now ${bracket.price}`;
  const made = svg("svg", { viewBox: "0 0 200 30", role: "img", "aria-label": words });
  made.append(svg("line", { class: "rail", x1: 6, x2: 194, y1: 8, y2: 8 }));
  if (begun !== undefined) {
    const run = bracket.place >= begun ? "run-good" : "run-bad";
    made.append(svg("line", { class: run, x1: at(begun), x2: at(bracket.place), y1: 8, y2: 8 }));
    made.append(svg("line", { class: "begun", x1: at(begun), x2: at(begun), y1: 2, y2: 14 }));
  }
  made.append(svg("circle", { class: "here", cx: at(bracket.place), cy: 8, r: 6 }));
  made.append(svg("text", { x: 2, y: 28 }, `stop ${price(bracket.stop)}`));
  made.append(svg("text", { x: 198, y: 28, "text-anchor": "end" }, `${price(bracket.target)} target`));
  return [made];
}

function unprotected(bracket) {
  if (bracket.entry_net_price === null && !bracket.unprotected_now) return [];
  return [el("span", { class: bracket.unprotected_now ? "bad" : "" }, seconds(bracket.unprotected_s))];
}

const distance = (to, level) =>
  to === undefined || to === null ? (level ? ["", el("span", { class: "under" }, `at ${price(level)}`)] : []) : [price(to), el("span", { class: "under" }, `at ${price(level)}`)];

// Tables. Rows are kept by their bracket, so that the focus of a keyboard stays where it is.

const OPEN_COLUMNS = [
  ["Bracket", "who", (b) => [link(b, b.name), el("span", { class: "under" }, [b.client_ref, `${b.quantity} ×`, b.expires].filter(Boolean).join(" · "))]],
  ["State", "state", (b) => [pill(b.tone, b.standing), el("span", { class: "under" }, `${b.state} · ${b.protection}`)]],
  ["Stop to target", "gauge", gauge],
  ["Price", "number", (b) => (b.price === null ? [] : [price(b.price), el("span", { class: "under" }, `entry ${price(b.entry)}`)])],
  ["To target", "number", (b) => distance(b.to_target, b.target)],
  ["To stop", "number", (b) => distance(b.to_stop, b.stop)],
  ["Result", "number", profit],
  ["Unprotected", "number", unprotected],
];

const CLOSED_COLUMNS = [
  ["Bracket", "who", (b) => [link(b, b.client_ref), el("span", { class: "under" }, b.bracket_id.slice(0, 13))]],
  ["Outcome", "state", (b) => [pill(...(OUTCOMES[b.outcome] ?? ["idle", b.outcome ?? ""])), el("span", { class: "under" }, b.protection)]],
  ["Entry", "number", (b) => [net(b.entry_net_price)]],
  ["Exit", "number", (b) => [net(b.exit_net_price)]],
  ["Unprotected", "number", (b) => (b.entry_net_price === null ? [] : [seconds(b.unprotected_s)])],
  ["Closed", "number", (b) => [when(b.closed_at)]],
];

function table(place, columns, labelledBy, rows) {
  let made = place.firstElementChild;
  if (!made) {
    const head = el("tr", { role: "row" }, ...columns.map(([name, kind]) => el("th", { scope: "col", role: "columnheader", class: kind }, name)));
    made = el("table", { role: "table", "aria-labelledby": labelledBy }, el("thead", { role: "rowgroup" }, head), el("tbody", { role: "rowgroup" }));
    place.append(made);
  }
  made.hidden = rows.length === 0;
  const body = made.tBodies[0];
  const present = new Map([...body.rows].map((row) => [row.dataset.bracket, row]));
  rows.forEach((bracket, index) => {
    let row = present.get(bracket.bracket_id);
    present.delete(bracket.bracket_id);
    if (!row) {
      row = el("tr", { role: "row", "data-bracket": bracket.bracket_id });
      row.append(...columns.map(([name, kind]) => el("td", { role: "cell", class: kind, "data-name": name })));
    }
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    columns.forEach(([, , content], column) => {
      const cells = content(bracket);
      const key = cells.map((each) => (typeof each === "string" ? each : each.outerHTML)).join("");
      replaceIfChanged(row.cells[column], key, () => cells);
    });
  });
  for (const row of present.values()) row.remove();
}

// The two views.

function showOverview(found) {
  byId("bracket").hidden = true;
  byId("overview").hidden = false;
  document.title = found.attention.length ? `(${found.attention.length}) otocod` : "otocod";
  const attention = byId("attention");
  attention.hidden = found.attention.length === 0;
  replaceIfChanged(attention.querySelector("ul"), JSON.stringify(found.attention), () =>
    found.attention.map((each) => el("li", {}, link(each, each.client_ref), `: ${each.attention}`)),
  );
  const total = found.brackets.length + found.unshown;
  setText(byId("open-title").querySelector(".count"), total ? String(total) : "");
  byId("none").hidden = total !== 0;
  table(byId("open"), OPEN_COLUMNS, "open-title", found.brackets);
  byId("unshown").hidden = found.unshown === 0;
  setText(byId("unshown"), `${found.unshown} more are open; these are the most urgent.`);
  byId("lately").hidden = found.closed.length === 0;
  table(byId("closed"), CLOSED_COLUMNS, "closed-title", found.closed);
}

function showFrame(found) {
  const environment = byId("environment");
  environment.hidden = !found.environment;
  environment.className = `pill ${found.environment === "production" ? "production" : ""}`;
  setText(environment, found.environment ?? "");
  setText(byId("freshness"), `as of ${when(found.at)}`);
  replaceIfChanged(byId("health"), JSON.stringify(found.health), () =>
    found.health.map((each) =>
      el("li", {}, el("div", { class: "what" }, each.what), el("div", { class: `text ${each.tone}` }, mark(each.tone), each.text), el("div", { class: "detail" }, each.detail)),
    ),
  );
  setText(byId("footer"), `otocod ${found.version} · up ${seconds(found.uptime_s)} · accounts ${(found.accounts ?? []).join(", ")} · this page changes nothing`);
}

function fact(name, main, under = "", tone = "") {
  return el("div", {}, el("dt", {}, name), el("dd", { class: tone }, main, under ? el("small", {}, under) : null));
}

function factsOf(b) {
  const found = [];
  const [tone, words] = OUTCOMES[b.outcome] ?? [b.tone, b.standing];
  found.push(fact(b.outcome ? "Outcome" : "Standing", words, b.state, tone));
  found.push(fact("Protection", b.protection, b.frozen ? "frozen" : ""));
  if (b.price !== null) found.push(fact("Price", price(b.price), b.mid ? `mid ${price(b.mid)}` : ""));
  else if (b.quotes) found.push(fact("Price", "–", b.quotes.text));
  if (b.to_entry) found.push(fact("To entry", price(b.to_entry), `at ${price(b.entry)}`));
  if (b.target) found.push(fact("Target", price(b.target), b.to_target ? `${price(b.to_target)} away` : ""));
  if (b.stop) found.push(fact("Stop", price(b.stop), b.to_stop ? `${price(b.to_stop)} away` : b.stop_limit ? `limit ${price(b.stop_limit)}` : ""));
  if (b.entry_net_price) found.push(fact("Entry", net(b.entry_net_price), b.exit_net_price ? `exit ${net(b.exit_net_price)}` : ""));
  if (b.profit !== null) found.push(fact("Result", b.profit_dollars === null ? signed(b.profit) : `${signed(b.profit_dollars)} $`, "before fees", Number(b.profit) < 0 ? "bad" : "good"));
  if (b.entry_net_price || b.unprotected_now) found.push(fact("Unprotected", seconds(b.unprotected_s), b.unprotected_now ? "and counting" : "in all", b.unprotected_now ? "bad" : ""));
  return found;
}

const ORDER_COLUMNS = [
  ["Order", "who", (o) => [el("strong", {}, o.role), el("span", { class: "under" }, o.external_identifier)]],
  ["Status", "", (o) => [o.status + (o.handed_over ? ", handed over" : "")]],
  ["Filled", "number", (o) => [`${o.filled_quantity} of ${o.quantity}`]],
  ["At", "number", (o) => [net(o.net_fill_price)]],
  ["Broker's id", "number", (o) => [o.broker_order_id ?? ""]],
];

function showBracket(view) {
  const place = byId("bracket");
  const b = view.bracket;
  byId("overview").hidden = true;
  place.hidden = false;
  document.title = `${b.client_ref}, otocod`;
  if (place.dataset.bracket !== b.bracket_id) {
    place.dataset.bracket = b.bracket_id;
    place.replaceChildren(
      el("a", { class: "back", href: "#/" }, "← All brackets"),
      el("div", { class: "title" }),
      el("p", { class: "byline" }),
      el("div", { class: "attention", role: "status" }),
      el("dl", { class: "facts" }),
      el("figure"),
      el("h2", { id: "orders-title" }, "Orders"),
      el("div", { class: "orders" }),
      el("h2", { id: "story-title" }, "What happened"),
      el("ol", { class: "story", "aria-labelledby": "story-title" }),
    );
  }
  const part = (selector) => place.querySelector(selector);
  replaceIfChanged(part(".title"), `${b.name}${b.tone}${b.standing}`, () => [el("h1", {}, b.name), pill(b.tone, b.standing)]);
  const tags = Object.entries(b.tags).map(([key, value]) => `${key} ${value}`);
  setText(part(".byline"), [b.client_ref, `${b.quantity} ×`, b.expires ? `expires ${b.expires}` : "", `account ${b.account}`, `since ${when(b.created_at)}`, ...tags].filter(Boolean).join(" · "));
  part(".attention").hidden = !b.attention;
  setText(part(".attention"), b.attention ? `A person should look: ${b.attention}` : "");
  const facts = factsOf(b);
  replaceIfChanged(part(".facts"), facts.map((each) => each.outerHTML).join(""), () => facts);
  drawChart(part("figure"), view);
  table(part(".orders"), ORDER_COLUMNS, "orders-title", view.orders.map((each) => ({ ...each, bracket_id: each.external_identifier })));
  replaceIfChanged(part(".story"), JSON.stringify(view.story), () =>
    view.story.map((line) =>
      el("li", {}, line.at ? el("time", { datetime: line.at }, when(line.at)) : el("span"), el("div", { class: "text" }, line.text, el("span", { class: "evidence" }, line.evidence.join(", ")))),
    ),
  );
}

function drawChart(figure, view) {
  const width = Math.max(300, Math.floor(figure.clientWidth - 28));
  const key = JSON.stringify([width, view.course, view.fills, view.bracket.target, view.bracket.stop, view.bracket.price, view.bracket.closed_at]);
  replaceIfChanged(figure, key, () => {
    const drawn = chart(view, width, Date.now());
    return [drawn, el("figcaption", {}, `Price of one unit: ${view.course.told}.`)].filter(Boolean);
  });
}

function showNoBracket(id) {
  byId("overview").hidden = true;
  const place = byId("bracket");
  place.hidden = false;
  delete place.dataset.bracket;
  place.replaceChildren(el("a", { class: "back", href: "#/" }, "← All brackets"), el("p", { class: "quiet" }, `There is no bracket ${id}.`));
}

// Polling.

class Missing extends Error {}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(WAIT_MS), credentials: "same-origin" });
  if (answer.status === 401) location.assign("/login");
  if (answer.status === 404) throw new Missing();
  if (!answer.ok) throw new Error(`otocod answered ${answer.status}`);
  return answer.json();
}

let lastGood = null;

function tellTrouble(found, error) {
  const trouble = byId("trouble");
  let text = "";
  if (error) text = `otocod does not answer (${error.message}). ${lastGood ? `What you see is from ${when(lastGood)}.` : ""}`;
  else if (!found.running) text = "otocod is not running.";
  trouble.hidden = !text;
  setText(trouble, text);
}

async function look() {
  const wanted = location.hash;
  const id = wanted.startsWith("#/b/") ? decodeURIComponent(wanted.slice(4)) : null;
  const overview = ask("/api/overview");
  const view = id === null ? null : ask(`/api/brackets/${encodeURIComponent(id)}`);
  view?.catch(() => {});
  const found = await overview;
  lastGood = found.at;
  showFrame(found);
  tellTrouble(found, null);
  if (wanted !== location.hash) return;
  if (view === null) {
    showOverview(found);
    return;
  }
  try {
    showBracket(await view);
  } catch (error) {
    if (!(error instanceof Missing)) throw error;
    showNoBracket(id);
  }
}

let timer = null;
let isLooking = false;

async function lookAndGoOn() {
  clearTimeout(timer);
  if (isLooking) return;
  isLooking = true;
  try {
    await look();
  } catch (error) {
    tellTrouble(null, error);
  } finally {
    isLooking = false;
  }
  if (!document.hidden) timer = setTimeout(lookAndGoOn, POLL_MS);
}

addEventListener("hashchange", () => {
  scrollTo(0, 0);
  lookAndGoOn();
});
addEventListener("visibilitychange", lookAndGoOn);
addEventListener("resize", lookAndGoOn);
lookAndGoOn();
