// One server: what it is, how it is, and what there is of it.

import { draw, lasted, reason, title } from "./picture.js";
import { ago, between, drawn, duration, element, plural, sentence, size, stamp } from "./words.js";

const POINTS = 60;
const SHOWN = 12;
const TASKS = {
  backup: "Full backup",
  incremental_backup: "Incremental backup",
  verification: "Verification",
  retention: "Retention",
  check: "Check",
};

const seconds = (text, now) => Math.max((now - Date.parse(text)) / 1000, 0);

// Interruptions that a recovery to now would meet.
function inTheWay(server) {
  const { recoverable, interruptions } = server.stored.window;
  const first = recoverable[0];
  const behind = (gap) => {
    const end = gap.to ?? gap.from;
    return !first || !end || Date.parse(end) >= Date.parse(first.from);
  };
  return interruptions.filter((gap) => gap.kind !== "retired" && behind(gap));
}

// Whether WAL comes in.
function receiving(server) {
  const receiver = server.receiver;
  if (!server.active) return "off";
  if (!receiver || receiver.disk_full || receiver.state === "refused") return "failed";
  if (receiver.state === "streaming") return "ok";
  return receiver.last_error ? "failed" : "warning";
}

// Whether somebody has to look.
export function severity(server) {
  const wal = receiving(server);
  const rows = server.check?.rows ?? [];
  const broken = inTheWay(server).some((gap) => gap.kind !== "left_out");
  if (wal === "off") return "off";
  if (wal === "failed" || broken || rows.some((row) => row.state === "failed")) return "failed";
  if (rows.some((row) => row.state === "warning") || server.stored.problems.length) return "warning";
  return server.stored.window.recoverable.length === 0 ? "warning" : wal;
}

export class Card {
  constructor(name) {
    this.name = name;
    this.rates = [];
    const part = (kind, ...children) => element("div", { class: kind }, ...children);
    this.state = element("p", { class: "state" });
    this.about = element("p", { class: "about" });
    this.words = element("p", { class: "words" });
    this.box = part("picture");
    this.facts = element("dl", { class: "facts" });
    this.tasks = part("tasks");
    this.rows = element("ul", { class: "rows" });
    this.checks = this.details("checks");
    this.backups = this.details("backups");
    const heading = element("h2", {}, element("i", { class: "dot", "aria-hidden": "true" }), name);
    this.root = element("article", { "aria-label": `Server ${name}` },
      part("head", heading, this.about, this.state),
      this.words, this.box, this.facts, this.tasks, this.rows,
      part("more", this.checks.root, this.backups.root));
  }

  details(kind) {
    const summary = element("summary");
    const body = element("div");
    return { root: element("details", { class: kind }, summary, body), summary, body };
  }

  // All that is known of it.
  all(server, now) {
    this.server = server;
    this.about.replaceChildren(...this.description(server));
    this.check(server, now);
    this.list(server);
    this.live(server, now);
  }

  // What changes all the time.
  live(live, now) {
    Object.assign(this.server, live);
    const server = this.server;
    this.root.className = severity(server);
    this.state.textContent = sentence(server.words);
    this.state.className = `state ${receiving(server)}`;
    this.sample(server.receiver, now);
    this.words.replaceChildren(...sayWindow(server, now));
    this.facts.replaceChildren(...this.figures(server, now));
    this.tasks.replaceChildren(...server.running.map((task) => running(task, now)));
    this.tasks.hidden = server.running.length === 0;
  }

  picture(hours, now) {
    draw(this.box, this.server.stored.window, hours, now, this.name);
  }

  description(server) {
    const version = server.stored.server_version;
    const told = [server.description, version && `PostgreSQL ${version}`].filter(Boolean);
    const timeline = server.receiver?.timeline;
    if (timeline > 1) told.push(`timeline ${timeline}`);
    return [told.join(" · ")];
  }

  sample(receiver, now) {
    const bytes = receiver?.flushed_bytes ?? null;
    const last = this.last;
    if (bytes !== null && last && now > last.now && bytes >= last.bytes) {
      this.rates.push(((bytes - last.bytes) / (now - last.now)) * 1000);
      if (this.rates.length > POINTS) this.rates.shift();
    }
    if (bytes !== null) this.last = { bytes, now };
  }

  figures(server, now) {
    const { sizes, window } = server.stored;
    const receiver = server.receiver;
    const rows = server.check?.rows ?? [];
    const row = (name) => rows.find((row) => row.name === name);
    const facts = [lag(receiver, now)];
    const rate = this.rates.at(-1);
    facts.push(fact("Rate", rate === undefined ? "–" : `${size(rate)}/s`, spark(this.rates)));
    facts.push(slot(receiver, row("replication slot"), row("WAL kept by the slot")));
    const backup = window.backups.findLast((backup) => backup.status === "DONE");
    facts.push(lastBackup(backup, server, now));
    const daily = sizes.growth_per_day ? `grows by ${size(sizes.growth_per_day)} a day` : null;
    facts.push(fact("Stored", size(sizes.backup_bytes + sizes.wal_bytes),
      `backups ${size(sizes.backup_bytes)}`, `WAL ${size(sizes.wal_bytes)}`, daily));
    facts.push(disk(sizes));
    return facts;
  }

  check(server, now) {
    const check = server.check;
    const rows = check?.rows ?? [];
    const bad = rows.filter((row) => row.state !== "ok");
    const problems = server.stored.problems.map((remark) =>
      ({ name: "store", state: "failed", remark }));
    this.rows.replaceChildren(...[...problems, ...bad].map(sayRow));
    this.rows.hidden = bad.length + problems.length === 0;
    const good = rows.length - bad.length;
    const when = check ? ago(seconds(check.at, now)) : null;
    this.checks.summary.textContent = check
      ? `${good} of ${plural(rows.length, "check")} passed, ${when}`
      : "Not checked yet";
    this.checks.body.replaceChildren(
      element("ul", { class: "rows" }, ...rows.filter((row) => row.state === "ok").map(sayRow)));
  }

  list(server) {
    const backups = [...server.stored.window.backups].reverse();
    this.backups.summary.textContent = plural(backups.length, "backup");
    const cells = (backup) => [
      element("td", {}, element("code", {}, backup.id), backup.name ? ` ${backup.name}` : ""),
      element("td", {}, backup.kind),
      element("td", { class: `status ${backup.status ?? "BROKEN"}` }, backup.status ?? "unreadable"),
      element("td", {}, stamp(backup.began_at)),
      element("td", { class: "number" },
        backup.ended_at ? lasted(backup) : "–"),
      element("td", { class: "number" }, backup.stored_bytes ? size(backup.stored_bytes) : "–"),
    ];
    const heads = ["Backup", "Kind", "Status", "Began", "Took", "Size"];
    const table = element("table", {},
      element("thead", {}, element("tr", {},
        ...heads.map((head, place) => element("th", { scope: "col", class: place > 3 ? "number" : null }, head)))),
      element("tbody", {}, ...backups.slice(0, SHOWN).map((backup) =>
        element("tr", { title: backup.error ?? title(backup) }, ...cells(backup)))));
    const more = backups.length > SHOWN
      ? element("p", { class: "quiet" }, `and ${plural(backups.length - SHOWN, "older one", "older ones")}`)
      : null;
    this.backups.body.replaceChildren(...(backups.length ? [element("div", { class: "scroll" }, table)] : []));
    if (more) this.backups.body.append(more);
  }
}

// From when to when it can be recovered, with times of the reader's own zone.
function sayWindow(server, now) {
  const { recoverable: all, summary } = server.stored.window;
  if (all.length === 0) return [sentence(summary), "."];
  // What the policy let go is no gap: what was kept from before that stands for itself.
  const behind = all.slice(all.findLastIndex((stretch) => stretch.ends === "retired") + 1);
  const recoverable = behind.length > 0 ? behind : all;
  const first = recoverable[0];
  const current = recoverable.findLast((stretch) => stretch.ends === "end_of_wal") ?? recoverable.at(-1);
  const receiver = current.ends === "end_of_wal" && server.receiver?.state === "streaming" ? server.receiver : null;
  const caughtUp = receiver?.lag_bytes === 0;
  // The window is not asked for as often as the receiver.
  const reached = receiver?.timeline === current.timeline ? Date.parse(receiver.caught_up_at) || 0 : 0;
  const end = caughtUp ? now : Math.max(Date.parse(current.to), reached);
  const whole = duration((end - Date.parse(first.from)) / 1000);
  const until = caughtUp || now - end < 5000 ? ["now"] : [stamp(new Date(end).toISOString()), ` (${ago((now - end) / 1000)})`];
  const words = ["Recoverable to any moment from ", stamp(first.from), " to ", ...until, ", ",
    element("b", {}, whole)];
  const breaks = recoverable.slice(1).map((next, place) => [recoverable[place], next])
    .filter(([before, next]) => Date.parse(before.to) < Date.parse(next.from));
  if (breaks.length === 0 && inTheWay(server).length === 0) return [...words, ", without a gap."];
  for (const [before, next] of breaks) {
    words.push(element("span", { class: `but ${before.ends}` }, ", but not between ", ...between(before.to, next.from),
      `: ${reason({ kind: before.ends })}`));
  }
  if (current.ends !== "end_of_wal") {
    words.push(element("span", { class: "but" }, `. Not beyond: ${reason({ kind: current.ends })}; take a backup`));
  }
  return [...words, "."];
}

function fact(name, value, ...notes) {
  const told = notes.filter(Boolean).map((note) =>
    (typeof note === "string" ? element("span", { class: "note" }, note) : note));
  return element("div", {}, element("dt", {}, name),
    element("dd", {}, element("span", { class: "value" }, value), ...told));
}

function lag(receiver, now) {
  if (!receiver || receiver.lag_bytes === null) {
    const heard = receiver?.heard_at ? `heard ${ago(seconds(receiver.heard_at, now))}` : "never heard";
    return fact("Lag", "–", heard);
  }
  const behind = receiver.lag_seconds > 2 ? `behind for ${duration(receiver.lag_seconds)}` : "under 2\u00a0s behind";
  const note = receiver.lag_bytes > 0 ? behind : "caught up";
  return fact("Lag", size(receiver.lag_bytes), note, receiver.synchronous ? "commits wait for us" : null);
}

function slot(receiver, row, kept) {
  const name = receiver?.slot ?? "–";
  if (row && row.state !== "ok") return fact("Slot", "see below", name);
  const safe = kept?.measured;
  if (kept && kept.state !== "ok") return fact("Slot", "in danger", name);
  const room = safe === null || safe === undefined ? null : `${size(Math.max(safe, 0))} until it is lost`;
  return fact("Slot", row ? "healthy" : "–", name, room);
}

function lastBackup(backup, server, now) {
  const next = Object.entries(server.planned)
    .filter(([task]) => task.includes("backup"))
    .map(([, at]) => (Date.parse(at) - now) / 1000)
    .sort((a, b) => a - b)[0];
  const taken = server.running.some((task) => task.task.includes("backup"));
  const coming = taken ? "the next is being taken"
    : next === undefined ? "none scheduled" : `next in ${duration(Math.max(next, 0))}`;
  if (!backup) return fact("Last backup", "none", coming);
  const took = backup.ended_at ? `in ${lasted(backup)}` : "";
  return fact("Last backup", ago(seconds(backup.ended_at ?? backup.began_at, now)),
    `${backup.kind}, ${size(backup.stored_bytes)}`, took, coming);
}

function disk(sizes) {
  const disk = sizes.disk;
  if (!disk) return fact("Disk", "–");
  const share = disk.size_bytes > 0 ? 1 - disk.free_bytes / disk.size_bytes : 0;
  const bar = element("progress", { max: 1, value: share.toFixed(3), "aria-label": "Used share of the disk" });
  const forecast = disk.full_in_seconds === null
    ? sizes.growth_per_day === null ? null : "does not fill up"
    : disk.full_in_seconds > 3 * 365 * 86400 ? "full in years" : `full in ${duration(disk.full_in_seconds)}`;
  return fact("Disk", `${size(disk.free_bytes)} free`, bar, forecast);
}

function spark(rates) {
  const [width, height] = [84, 20];
  const most = Math.max(...rates, 1);
  const x = (place) => width - (rates.length - 1 - place) * (width / (POINTS - 1));
  const y = (rate) => height - 1 - (rate / most) * (height - 3);
  const line = rates.map((rate, place) => `${x(place).toFixed(1)} ${y(rate).toFixed(1)}`).join("L");
  const svg = drawn("svg", { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    drawn("line", { class: "base", x1: 0, x2: width, y1: height - 1, y2: height - 1 }));
  if (rates.length > 1) {
    svg.append(
      drawn("path", { class: "area", d: `M${x(0).toFixed(1)} ${height}L${line}L${width} ${height}Z` }),
      drawn("path", { class: "line", d: `M${line}` }));
  }
  return svg;
}

function running(task, now) {
  const known = task.total > 0;
  const bar = element("progress", known
    ? { max: task.total, value: Math.min(task.done, task.total) } : {});
  bar.setAttribute("aria-label", TASKS[task.task] ?? task.task);
  const told = known
    ? `${size(task.done)} of ${size(task.total)} · ${Math.floor((task.done / task.total) * 100)} %`
    : task.done > 0 ? size(task.done) : "";
  return element("div", { class: "task" },
    element("span", { class: "what" }, TASKS[task.task] ?? task.task),
    element("span", { class: "note" }, task.phase || "waiting for its turn"),
    bar, element("span", { class: "note number" }, told),
    element("span", { class: "note" }, `since ${duration(seconds(task.since, now))}`));
}

function sayRow(row) {
  const word = { ok: "OK", warning: "Warning", failed: "Failed" }[row.state];
  return element("li", { class: row.state },
    element("span", { class: "word" }, word),
    element("span", { class: "name" }, row.name),
    row.remark ? element("span", { class: "remark" }, row.remark) : null);
}
