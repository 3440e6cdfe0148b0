// The recoverable window as a picture: backups above the WAL that leads on from them.

import { day, drawn, duration, element, exact, hour, moment, sentence, size } from "./words.js";

const DAY = 86400e3;
const MARKS = 30;
const LANE = 12;
const APART = 22;
const AXIS = 22;
const HOUR = 3600e3;
const STEPS = [1 / 288, 1 / 144, 1 / 96, 1 / 48, 1 / 24, 3 / 24, 6 / 24, 12 / 24, 1, 2, 3, 7, 14, 30, 91, 365, 3650].map((d) => d * DAY);

const time = (text) => (text ? Date.parse(text) : null);

// When the first thing that is known of began.
export function oldest(view) {
  const begins = [...view.backups.map((backup) => time(backup.began_at)), ...view.wal.map((wal) => time(wal.from))];
  return Math.min(...begins.filter((at) => at !== null));
}

// From when to when is shown: so many hours, or everything.
export function extent(view, hours, now) {
  const from = hours > 0 ? now - hours * HOUR : Math.min(now - HOUR, oldest(view));
  const length = now - from;
  return { from: hours > 0 ? from : from - length * 0.02, to: now + length * 0.025, now };
}

// Draws a view into a box, as wide as that is.
export function draw(box, view, hours, now, name) {
  const width = Math.max(box.clientWidth, 240);
  const range = extent(view, hours, now);
  const timelines = view.timelines.length > 0 ? view.timelines : [{ timeline: 1, current: true }];
  const lanes = new Map(timelines.map((mark, lane) => [mark.timeline, MARKS + lane * APART]));
  const bottom = MARKS + (timelines.length - 1) * APART + LANE + 6;
  const left = timelines.length > 1 ? 26 : 2;
  const scale = (at) => left + ((at - range.from) / (range.to - range.from)) * (width - left - 2);
  const visible = (from, to) => to >= range.from && from <= range.to;
  const clip = (at) => Math.min(Math.max(at, range.from), range.to);
  const edge = (from, to, least) => {
    const begin = scale(clip(from));
    return { x: begin, width: Math.max(scale(clip(to)) - begin, least) };
  };

  const svg = drawn("svg", {
    width, height: bottom + AXIS, role: "img",
    "aria-label": `${name}: ${view.summary}`,
  });
  svg.append(...axis(range, scale, bottom, width));

  for (const stretch of view.recoverable) {
    const [from, to] = [time(stretch.from), time(stretch.to)];
    if (!visible(from, to)) continue;
    const place = edge(from, to, 2);
    svg.append(
      drawn("rect", { class: "window", ...place, y: 4, height: bottom - 4, rx: 4 }),
      drawn("rect", { class: "window-edge", ...place, y: 4, height: 2, rx: 1 }),
    );
  }

  for (const mark of timelines) {
    const y = lanes.get(mark.timeline);
    if (timelines.length > 1) {
      svg.append(drawn("text", { class: "lane", x: 0, y: y + LANE - 2 }, `T${mark.timeline}`));
    }
    svg.append(drawn("rect", { class: "track", x: left, width: width - left - 2, y, height: LANE, rx: LANE / 2 }));
  }
  for (const wal of view.wal) {
    const to = time(wal.to) ?? now;
    const from = time(wal.from) ?? to;
    if (!visible(from, to) || !lanes.has(wal.timeline)) continue;
    const current = timelines.find((mark) => mark.timeline === wal.timeline)?.current;
    svg.append(drawn("rect", {
      class: current ? "wal" : "wal left", ...edge(from, to, 3),
      y: lanes.get(wal.timeline), height: LANE, rx: 4,
    }));
  }
  for (const mark of timelines) {
    const at = time(mark.forked_at);
    if (at === null || !lanes.has(mark.parent) || !visible(at, at)) continue;
    const x = scale(at);
    const [from, to] = [lanes.get(mark.parent) + LANE / 2, lanes.get(mark.timeline) + LANE / 2];
    svg.append(
      drawn("path", { class: "fork", d: `M${x - 12} ${from} C${x - 2} ${from} ${x - 8} ${to} ${x + 3} ${to}` }),
    );
  }
  for (const gap of view.interruptions) {
    const from = time(gap.from) ?? time(gap.to);
    const to = Math.max(time(gap.to) ?? from, from);
    if (from === null || !visible(from, to)) continue;
    const y = lanes.get(gap.timeline) ?? MARKS;
    svg.append(
      drawn("rect", { class: `gap ${gap.kind}`, ...edge(from, to, 5), y: y - 3, height: LANE + 6, rx: 3 }),
    );
  }
  for (const backup of view.backups) {
    const at = time(backup.began_at);
    if (!visible(at, at)) continue;
    svg.append(backupMark(backup, scale(at), lanes.get(backup.timeline) ?? MARKS));
  }

  const nowX = scale(range.now);
  svg.append(drawn("line", { class: "now", x1: nowX, x2: nowX, y1: 0, y2: bottom + 2 }));
  const cursor = drawn("line", { class: "cursor", y1: 0, y2: bottom + 2, x1: -9, x2: -9 });
  svg.append(cursor);

  const tip = element("div", { class: "tip", hidden: "" });
  svg.addEventListener("pointermove", (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    const at = range.from + ((x - left) / (width - left - 2)) * (range.to - range.from);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    tip.textContent = told(view, at, now, (backup) => Math.abs(scale(time(backup.began_at)) - x) < 7);
    tip.hidden = false;
    const place = Math.min(Math.max(x - tip.offsetWidth / 2, 0), width - tip.offsetWidth);
    tip.style.transform = `translateX(${place}px)`;
  });
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    cursor.setAttribute("x1", -9);
    cursor.setAttribute("x2", -9);
  });
  box.replaceChildren(svg, tip);
}

function backupMark(backup, x, lane) {
  const full = backup.kind !== "incremental";
  const y = 16;
  const good = backup.status === "DONE";
  const open = backup.status === "STARTED" || backup.status === "WAITING_FOR_WALS";
  const kind = `backup ${full ? "full" : "incremental"} ${good ? "good" : open ? "open" : "bad"}`;
  const group = drawn("g", { class: kind });
  group.append(drawn("line", { class: "stem", x1: x, x2: x, y1: y, y2: lane + 1 }));
  if (good || open) {
    if (backup.keep) group.append(drawn("circle", { class: "keep", cx: x, cy: y, r: 8.5 }));
    group.append(drawn("circle", { class: "dot", cx: x, cy: y, r: full ? 5.5 : 3.5 }));
  } else {
    group.append(drawn("path", {
      class: "cross", d: `M${x - 4} ${y - 4}L${x + 4} ${y + 4}M${x + 4} ${y - 4}L${x - 4} ${y + 4}`,
    }));
  }
  group.append(drawn("title", {}, title(backup)));
  return group;
}

// How long a backup that has ended took.
export function lasted(backup) {
  const seconds = (time(backup.ended_at) - time(backup.began_at)) / 1000;
  return seconds < 1 ? "under 1\u00a0s" : duration(seconds);
}

export function title(backup) {
  const parts = [backup.id, backup.name, backup.kind, backup.status ?? "unreadable"];
  if (backup.stored_bytes > 0) parts.push(size(backup.stored_bytes));
  if (backup.ended_at) parts.push(lasted(backup));
  if (backup.keep) parts.push(`kept (${backup.keep})`);
  return parts.filter(Boolean).join(" · ");
}

// What there is at a moment, in words.
function told(view, at, now, near) {
  const backup = view.backups.findLast(near);
  if (backup) return `${title(backup)} · ${exact(time(backup.began_at))}`;
  const within = (piece) => time(piece.from) <= at && at <= time(piece.to);
  const gap = view.interruptions.find(within);
  if (at > now) return `${moment(at)} · not yet`;
  if (gap) return `${moment(at)} · ${reason(gap)}`;
  return `${moment(at)} · ${view.recoverable.some(within) ? "recoverable" : "not recoverable"}`;
}

export function reason(gap) {
  return {
    missing: "WAL is missing",
    left_out: "WAL was left out, as was asked for",
    retired: "WAL was removed by the retention policy",
    suspect: gap.what ? `PostgreSQL could not replay this WAL: ${gap.what}` : "PostgreSQL could not replay the WAL that follows",
    end_of_wal: "its timeline was left there",
  }[gap.kind ?? gap.ends] ?? sentence(String(gap.kind));
}

function axis(range, scale, bottom, width) {
  const wanted = (range.to - range.from) / Math.max(width / 90, 2);
  const step = STEPS.find((step) => step >= wanted) ?? STEPS.at(-1);
  const daily = step >= DAY;
  const text = step < 30 * DAY ? day : new Intl.DateTimeFormat(undefined, step >= 365 * DAY
    ? { year: "numeric" }
    : { month: "short", year: "2-digit" });
  const first = new Date(range.from);
  first.setHours(0, 0, 0, 0);
  const marks = [];
  for (let at = first.getTime(); at < range.to; at += step) {
    if (at < range.from) continue;
    // Days keep their midnight when clocks change.
    const mark = new Date(at);
    if (daily && mark.getHours() !== 0) mark.setHours(mark.getHours() > 12 ? 24 : 0);
    const x = scale(mark.getTime());
    const midnight = mark.getHours() === 0 && mark.getMinutes() === 0;
    marks.push(drawn("line", { class: "grid", x1: x, x2: x, y1: 6, y2: bottom + 3 }));
    const half = 20;
    if (x > half && x < width - half) {
      const label = daily || midnight ? text.format(mark) : hour.format(mark);
      marks.push(drawn("text", { class: "tick", x, y: bottom + 17, "text-anchor": "middle" }, label));
    }
  }
  return marks;
}
