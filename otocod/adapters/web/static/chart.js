"use strict";
// The course of a spread's price with its levels and fills, as SVG. Text is only ever put in as text.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const clock = (ms, withSeconds) =>
  new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(withSeconds ? { second: "2-digit" } : {}) });

const number = (text) => (text === null || text === undefined ? null : Number(text));

// Steps of 1, 2 or 5 that cut a stretch into about `wanted` parts.
function stepFor(stretch, wanted) {
  const raw = stretch / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw) ?? raw;
}

const TIME_STEPS_S = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 172800, 604800, 2592000];

function levelsOf(bracket) {
  return [
    ["target", "target", number(bracket.target)],
    ["entry", "entry", number(bracket.entry)],
    ["stop", "stop", number(bracket.stop)],
    ["limit", "stop limit", number(bracket.stop_limit)],
  ].filter(([, , value]) => value !== null);
}

function chart(view, width, nowMs) {
  const height = width < 560 ? 230 : 290;
  const edge = { left: 46, right: width < 560 ? 92 : 124, top: 14, bottom: 24 };
  const points = view.course.points.map(([at, price]) => [at, number(price)]);
  const fills = view.fills.map((each) => ({ ...each, value: number(each.value) }));
  const levels = levelsOf(view.bracket);
  const times = [...points.map(([at]) => at), ...fills.map((each) => each.at_ms)];
  if (!view.bracket.closed_at) times.push(nowMs);
  if (times.length < 2) times.push(Date.parse(view.bracket.created_at), nowMs);
  const prices = [...points.map(([, price]) => price), ...fills.map((each) => each.value), ...levels.map(([, , v]) => v)];
  const known = prices.filter((each) => each !== null && Number.isFinite(each));
  if (!known.length) return null;

  let [low, high] = [Math.min(...known), Math.max(...known)];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  [low, high] = [low - room, high + room];
  let [from, to] = [Math.min(...times), Math.max(...times)];
  const breath = Math.max((to - from) * 0.03, 500);
  [from, to] = [from - breath, to + breath];
  const x = (at) => edge.left + ((at - from) / (to - from)) * (width - edge.left - edge.right);
  const y = (price) => edge.top + ((high - price) / (high - low)) * (height - edge.top - edge.bottom);

  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": inWords(view) });
  grid(made, { low, high, from, to, x, y, width, height, edge });
  for (const [kind, , value] of levels) {
    made.append(svg("line", { class: `level ${kind}`, x1: edge.left, x2: width - edge.right, y1: y(value), y2: y(value) }));
  }
  names(made, levels, y, width - edge.right + 8, height - edge.bottom);
  if (points.length) made.append(svg("path", { class: "price", d: pathOf(points, x, y) }));
  const last = points.at(-1);
  if (last && last[1] !== null && !view.bracket.closed_at) {
    made.append(svg("circle", { class: "now", cx: x(last[0]), cy: y(last[1]), r: 3.5 }));
  }
  for (const fill of fills) {
    made.append(svg("circle", { class: `fill ${fill.role}`, cx: x(fill.at_ms), cy: y(fill.value), r: 5 }));
    const isLate = x(fill.at_ms) > width * 0.6;
    made.append(
      svg("text", { class: "fill-name", x: x(fill.at_ms) + (isLate ? -9 : 9), y: y(fill.value) - 8, "text-anchor": isLate ? "end" : "start" },
        `${fill.role} filled`),
    );
  }
  return made;
}

function grid(made, { low, high, from, to, x, y, width, height, edge }) {
  const step = stepFor(high - low, 5);
  const digits = Math.max(2, -Math.floor(Math.log10(step)));
  for (let price = Math.ceil(low / step) * step; price <= high; price += step) {
    made.append(svg("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(price), y2: y(price) }));
    made.append(svg("text", { class: "axis", x: edge.left - 8, y: y(price) + 4, "text-anchor": "end" }, price.toFixed(digits)));
  }
  const most = Math.max(2, Math.floor((width - edge.left - edge.right) / 96));
  const stepMs = (TIME_STEPS_S.find((each) => (to - from) / 1000 / each <= most) ?? TIME_STEPS_S.at(-1)) * 1000;
  for (let at = Math.ceil(from / stepMs) * stepMs; at <= to; at += stepMs) {
    const day = stepMs >= 86400000 ? new Date(at).toLocaleDateString([], { month: "short", day: "numeric" }) : null;
    made.append(svg("text", { class: "axis", x: x(at), y: height - 6, "text-anchor": "middle" }, day ?? clock(at, stepMs < 60000)));
  }
}

// Names stand beside their lines and push each other apart where lines are close.
function names(made, levels, y, left, bottom) {
  const placed = levels.map(([kind, name, value]) => ({ kind, name, value, at: y(value) })).sort((a, b) => a.at - b.at);
  for (let i = 1; i < placed.length; i++) placed[i].at = Math.max(placed[i].at, placed[i - 1].at + 14);
  const over = placed.length ? placed.at(-1).at - bottom : 0;
  for (const each of placed) {
    const at = each.at - Math.max(over, 0) + 4;
    made.append(svg("text", { class: `name ${each.kind}`, x: left, y: at }, `${each.value.toFixed(2)} ${each.name}`));
  }
}

function pathOf(points, x, y) {
  let path = "";
  let isDrawing = false;
  for (const [at, price] of points) {
    if (price === null) {
      isDrawing = false;
      continue;
    }
    path += `${isDrawing ? "L" : "M"}${x(at).toFixed(1)} ${y(price).toFixed(1)}`;
    isDrawing = true;
  }
  return path;
}

function inWords(view) {
  const { bracket } = view;
  const parts = levelsOf(bracket).map(([, name, value]) => `${name} at ${value.toFixed(2)}`);
  if (bracket.price !== null) parts.unshift(`now ${bracket.price}`);
  for (const fill of view.fills) parts.push(`${fill.role} filled at ${fill.value}`);
  return `Price of one unit: ${parts.join(", ")}`;
}
