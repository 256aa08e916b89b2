/* Keeps what the server rendered alive. The markup says what to do.
 *
 *   [data-stream=URL]       an event stream whose events (one JSON object each) fill this element:
 *     [data-field=key]        its text; data-format="number" or "time" where the plain text will not do
 *     [data-list=key]         its items, one per entry, made from its <template>, told apart by data-by=key
 *     [data-attr="a=key ..."] its attributes, from patterns: "href=/lots/{id}"
 *     [data-role=...]         state, source, detail and path: what we know of the connection
 *   [data-log]              the latest events of all streams, newest first: data-topic, and its data-logged field
 *   form[data-post]         sent by fetch: what it changed comes back through the streams
 *
 * It never shows the answer to a POST, so a number that moves has come all the way round.
 */
"use strict";

const FRESH_S = 0.3;  // rendered longer than this before we connected: it was kept somewhere
const RETRY_MS = 3000;
const SEND_TIMEOUT_MS = 8000;
const LOG_LENGTH = 8;
const SOURCES = {cache: "from the cache", app: "from the app", push: "pushed"};
const SHORT_SOURCES = {cache: "cache", app: "app", push: "pushed"};
const FORMATS = {
  number: (value) => Number(value).toLocaleString("en-US"),
  time: (unix) => clock(new Date(unix * 1000)),
};
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

/* ---- Streams ---- */

const sources = new Map();

function follow(root) {
  const source = new EventSource(root.dataset.stream);
  sources.get(root)?.close();
  sources.set(root, source);
  let opened = Date.now();
  let events = 0;
  source.onopen = () => {
    opened = Date.now();
    events = 0;
    showState(root, "live");
  };
  source.onmessage = (message) => {
    const data = JSON.parse(message.data);
    const origin = originOf(data, events++, opened);
    fill(root, data);
    showOrigin(root, origin);
    log(root, data, origin);
  };
  source.onerror = () => {
    showState(root, "reconnecting");
    // The browser reconnects by itself after a lost connection, but gives up on an error status.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, RETRY_MS, root);
  };
}

function followAll() {
  document.querySelectorAll("[data-stream]").forEach((root) => follow(root));
}

function originOf(data, earlier, opened) {
  if (earlier > 0) return {name: "push", detail: `${duration(Date.now() / 1000 - data.rendered)} after it was rendered`};
  const age = opened / 1000 - data.rendered;
  if (age > FRESH_S) return {name: "cache", detail: `rendered ${duration(age)} before you connected`};
  return {name: "app", detail: "rendered as you connected"};
}

function showState(root, state) {
  for (const element of roles(root, "state")) {
    element.dataset.state = state;
    element.textContent = state;
  }
}

function showOrigin(root, origin) {
  for (const element of roles(root, "source")) {
    element.dataset.source = origin.name;
    element.textContent = SOURCES[origin.name];
  }
  for (const element of roles(root, "detail")) element.textContent = origin.detail;
  for (const element of roles(root, "path")) {
    element.dataset.source = "";
    void element.offsetWidth;  // restarts its animation
    element.dataset.source = origin.name;
  }
}

function roles(root, role) {
  return root.querySelectorAll(`[data-role="${role}"]`);
}

/* ---- Data into markup ---- */

function fill(root, data) {
  if (root.dataset.attr) setAttributes(root, data);
  for (const element of root.querySelectorAll("[data-attr]")) if (isOurs(element, root)) setAttributes(element, data);
  for (const element of root.querySelectorAll("[data-field]")) if (isOurs(element, root)) setText(element, data);
  for (const element of root.querySelectorAll("[data-list]")) fillList(element, data[element.dataset.list] ?? []);
}

/* What is inside a list's item is filled with that item only. */
function isOurs(element, root) {
  const item = element.closest("[data-key]");
  return item === null || item === root || !root.contains(item);
}

function setAttributes(element, data) {
  for (const pair of element.dataset.attr.split(" ")) {
    const [name, pattern] = pair.split("=");
    element.setAttribute(name, expand(pattern, (key) => data[key]));
  }
}

function expand(pattern, valueOf) {
  return pattern.replace(/\{(\w+)\}/g, (_, key) => encodeURIComponent(valueOf(key)));
}

function setText(element, data) {
  const value = data[element.dataset.field];
  if (value === undefined || element.dataset.value === String(value)) return;
  const text = (FORMATS[element.dataset.format] ?? String)(value);
  const changed = element.textContent.trim() !== text;
  element.dataset.value = value;
  element.textContent = text;
  if (changed && element.isConnected) animate(element);  // a new item appears as a whole
}

function fillList(list, entries) {
  const template = list.querySelector("template");
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  known.delete(undefined);  // the template, and a line that stands in for an empty list
  let last = template;
  for (const entry of entries) {
    const key = String(entry[template.dataset.by]);
    const item = known.get(key) ?? template.content.firstElementChild.cloneNode(true);
    const isNew = !known.delete(key);
    item.dataset.key = key;
    fill(item, entry);
    if (last.nextElementSibling !== item) last.after(item);  // moved only when it must be
    if (isNew) appear(item);
    last = item;
  }
  known.forEach((item) => item.remove());
}

function animate(element) {
  if (CALM.matches) return;
  const from = {opacity: 0.15, transform: "translateY(0.18em)", color: "var(--accent)"};
  element.animate([from, {color: "var(--accent)", offset: 0.4}, {}], {duration: 600, easing: "cubic-bezier(.2,.8,.2,1)"});
}

function appear(element) {
  if (CALM.matches) return;
  const from = {opacity: 0, transform: "translateY(-0.5em)", backgroundColor: "var(--glow)"};
  element.animate([from, {}], {duration: 500, easing: "ease-out"});
}

/* ---- The log ---- */

function log(root, data, origin) {
  const list = document.querySelector("[data-log]");
  const item = list?.querySelector("template").content.firstElementChild.cloneNode(true);
  if (!item) return;
  const cells = {
    time: clock(new Date()),
    topic: root.dataset.topic,
    value: FORMATS.number(data[root.dataset.logged]),
    source: SHORT_SOURCES[origin.name],
  };
  for (const [name, text] of Object.entries(cells)) item.querySelector(`.${name}`).textContent = text;
  item.querySelector(".source").dataset.source = origin.name;
  item.dataset.source = origin.name;
  item.title = origin.detail;
  list.prepend(item);
  appear(item);
  for (const old of [...list.querySelectorAll("li[data-source]")].slice(LOG_LENGTH)) old.remove();
}

function clock(date) {
  return date.toLocaleTimeString("en-GB");
}

function duration(seconds) {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/* ---- Forms ---- */

async function send(form) {
  const fields = new URLSearchParams(new FormData(form));
  // data-post may name a field: "/counters/{name}/increment". Without one the form's action is taken.
  const url = expand(form.dataset.post, (field) => fields.get(field));
  const button = form.querySelector("button");
  button.setAttribute("aria-busy", "true");
  try {
    const signal = AbortSignal.timeout(SEND_TIMEOUT_MS);
    const answer = await fetch(url || form.getAttribute("action"), {method: "POST", body: fields, signal});
    showError(form, answer.ok ? "" : await explain(answer));
    if (answer.ok) form.querySelectorAll("[data-once]").forEach((input) => { input.value = ""; });
  } catch (error) {
    // All windows share six connections to a host over HTTP/1.1, and each stream holds one.
    const isSlow = error.name === "TimeoutError";
    showError(form, isSlow ? "No answer. Too many windows open?" : "The server cannot be reached.");
  } finally {
    button.removeAttribute("aria-busy");
  }
}

async function explain(answer) {
  const isText = (answer.headers.get("content-type") ?? "").startsWith("text/plain");
  return isText ? answer.text() : `${answer.status} ${answer.statusText}`;
}

function showError(form, text) {
  const element = form.querySelector("[role=alert]") ?? document.querySelector("[role=alert]");
  if (element) element.textContent = text;
}

document.documentElement.classList.add("js");
followAll();
// A page that is left may live on in the browser's back/forward cache, and would keep its
// connections there: over HTTP/1.1 a browser has six for all pages of a host.
addEventListener("pagehide", () => sources.forEach((source) => source.close()));
addEventListener("pageshow", (event) => event.persisted && followAll());
document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-post]")) return;
  event.preventDefault();
  send(event.target);
});
