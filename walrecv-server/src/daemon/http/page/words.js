// Sizes, times and durations in words, and elements made of text that is never markup.

const SVG = "http://www.w3.org/2000/svg";

// An element with attributes and children; a child that is text stays text.
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function drawn(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)}\u00a0${units[unit]}`;
}

export function duration(seconds) {
  const steps = [[86400, "day", 3], [3600, "h", 3], [60, "min", 2], [1, "s", 0]];
  for (const [length, unit, least] of steps) {
    const count = Math.floor(seconds / length);
    if (count >= Math.max(least, 1) || length === 1) {
      return unit === "day" ? `${count}\u00a0days` : `${Math.max(count, 0)}\u00a0${unit}`;
    }
  }
  return "";
}

export const ago = (seconds) => (seconds < 5 ? "just now" : `${duration(seconds)} ago`);

const moments = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const exactly = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric",
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short",
});
export const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
export const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clocks = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

export const moment = (time) => moments.format(time);
export const clock = (time) => clocks.format(time);

// A moment that tells its second, and what it is elsewhere, to those who point at it.
export function stamp(text, told = moment) {
  const time = new Date(text);
  return element("time", { datetime: text, title: exactly.format(time) }, told(time));
}

// Two moments, no more exact than it takes to tell them apart, and the day once if it is the same.
export function between(from, to) {
  const [begin, end] = [new Date(from), new Date(to)];
  if (begin.toDateString() !== end.toDateString()) return [stamp(from), " and ", stamp(to)];
  const close = moment(begin) === moment(end);
  const first = close ? (time) => `${day.format(time)}, ${clock(time)}` : moment;
  return [stamp(from, first), " and ", stamp(to, close ? clock : (time) => hour.format(time))];
}

export const exact = (time) => exactly.format(time);
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
