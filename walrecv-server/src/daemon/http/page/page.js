// Asks the daemon again and again, and shows what it says.

import { Card, severity } from "./card.js";
import { oldest } from "./picture.js";
import { clock, element, plural } from "./words.js";

const LIVE = 2000;
const ALL = 15000;
const PATIENCE = 10000;
const KEY = "walrecv-token";
const RANGE = "walrecv-hours";
// What is shown to somebody who has not chosen: the first that holds everything, or the last.
const USUAL = [1, 24, 168];

const at = (id) => document.getElementById(id);
const cards = new Map();
let chosen = sessionStorage.getItem(RANGE);
let hours = Number(chosen ?? USUAL.at(-1));
let heard = null;
let overviewAt = 0;
let skew = 0;

class Unauthorized extends Error {}

async function ask(path) {
  const token = sessionStorage.getItem(KEY);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (answer.status === 401) throw new Unauthorized();
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? `the daemon answers ${answer.status}`);
  return body;
}

async function look() {
  try {
    if (Date.now() - overviewAt >= ALL) {
      const answer = await ask("/api/v1/servers");
      overviewAt = Date.now();
      skew = Date.parse(answer.now) - Date.now();
      all(answer);
    } else {
      const answer = await ask("/api/v1/live");
      skew = Date.parse(answer.now) - Date.now();
      for (const live of answer.servers) cards.get(live.server)?.live(live, Date.parse(answer.now));
      summarise();
    }
    heard = Date.now();
    connected();
  } catch (error) {
    if (error instanceof Unauthorized) {
      login();
      return;
    }
    disconnected(error);
  }
  setTimeout(look, document.hidden ? LIVE * 5 : LIVE);
}

function all(answer) {
  const now = Date.parse(answer.now);
  const names = new Set(answer.servers.map((server) => server.server));
  for (const [name, card] of cards) {
    if (!names.has(name)) {
      card.root.remove();
      cards.delete(name);
    }
  }
  for (const server of answer.servers) {
    let card = cards.get(server.server);
    if (!card) {
      card = new Card(server.server);
      cards.set(server.server, card);
    }
    card.all(server, now);
  }
  arrange();
  if (chosen === null) {
    const begin = Math.min(...[...cards.values()].map((card) => oldest(card.server.stored.window)));
    show(USUAL.find((hours) => now - begin <= hours * 3600e3) ?? USUAL.at(-1));
  }
  for (const card of cards.values()) card.picture(hours, now);
  at("zone").textContent =
    `Times in ${Intl.DateTimeFormat().resolvedOptions().timeZone} · walrecv-server ${answer.version}`;
  summarise();
}

// What needs somebody comes first; among equals the order of names. Nothing moves that need not,
// so that what has the focus keeps it.
function arrange() {
  const rank = { failed: 0, warning: 1, ok: 2, off: 3 };
  const order = [...cards.values()].sort((a, b) =>
    rank[severity(a.server)] - rank[severity(b.server)] || a.name.localeCompare(b.name));
  const main = at("servers");
  const settled = order.every((card, place) => main.children[place] === card.root);
  if (!settled) main.replaceChildren(...order.map((card) => card.root));
}

function summarise() {
  const states = [...cards.values()].map((card) => severity(card.server));
  const count = (state) => states.filter((other) => other === state).length;
  const [bad, warned] = [count("failed"), count("warning")];
  const parts = [plural(states.length, "server")];
  if (bad) parts.push(`${bad} ${bad === 1 ? "needs" : "need"} you`);
  if (warned) parts.push(plural(warned, "warning"));
  if (!bad && !warned) parts.push("all well");
  const text = parts.join(" · ");
  // Said aloud only when it changes.
  if (at("summary").textContent !== text) at("summary").textContent = text;
  at("summary").className = bad ? "failed" : warned ? "warning" : "ok";
  document.title = bad ? `(${bad}) walrecv` : "walrecv";
}

function connected() {
  document.body.classList.remove("stale");
  at("trouble").hidden = true;
  at("login").hidden = true;
  at("connection").className = "live";
  at("connection-text").textContent = `live · ${clock(heard + skew)}`;
}

function disconnected(error) {
  document.body.classList.add("stale");
  at("connection").className = "lost";
  at("connection-text").textContent = "disconnected";
  const known = heard ? ` What you see is from ${clock(heard)}.` : "";
  at("trouble").textContent = `The daemon does not answer (${error.message}).${known} Trying again.`;
  at("trouble").hidden = false;
}

function login() {
  const wrong = sessionStorage.getItem(KEY) !== null;
  sessionStorage.removeItem(KEY);
  cards.clear();
  at("servers").replaceChildren();
  at("summary").textContent = "";
  at("connection-text").textContent = "token wanted";
  at("login-error").textContent = wrong ? "That is not the token." : "";
  at("login").hidden = false;
  at("token").focus();
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("token").value.trim());
  at("token").value = "";
  overviewAt = 0;
  look();
});

function show(wanted) {
  hours = wanted;
  for (const input of document.querySelectorAll("#ranges input")) input.checked = Number(input.value) === hours;
}

for (const input of document.querySelectorAll("#ranges input")) {
  input.addEventListener("change", () => {
    chosen = input.value;
    sessionStorage.setItem(RANGE, chosen);
    show(Number(chosen));
    for (const card of cards.values()) card.picture(hours, Date.now() + skew);
  });
}

let resized;
addEventListener("resize", () => {
  cancelAnimationFrame(resized);
  resized = requestAnimationFrame(() => {
    for (const card of cards.values()) card.picture(hours, Date.now() + skew);
  });
});

show(hours);
at("servers").append(element("p", { class: "plain" }, "Asking the daemon…"));
look();
